// Files on their way to the server, which answers with the path that a parameter is set to.

import { ApiError, apiUrl, errorIn } from "./api.js";
import { element } from "./inputs.js";
import { token } from "./token.js";

const ACCEPT = {
  image: "image/png,image/jpeg,image/webp",
  audio: "audio/*,.wav,.mp3,.flac,.ogg,.opus,.m4a",
  video: "video/mp4,video/quicktime,video/webm,video/x-matroska,.mkv",
};

/** Sends a file. `onProgress(0..1)` while it is sent; then the server looks at it. Rejects with an ApiError. */
function upload(file, onProgress = () => {}) {
  return new Promise((resolve, reject) => {
    // fetch does not tell how much of a body has left.
    const request = new XMLHttpRequest();
    request.open("POST", apiUrl("api/uploads"));
    for (const [name, value] of Object.entries(token.headers)) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total ? loaded / total : 0));
    request.addEventListener("error", () => reject(new ApiError("The file could not be sent.")));
    request.addEventListener("load", () => {
      if (request.status === 201) resolve(JSON.parse(request.responseText));
      else reject(errorIn(request.responseText, { status: request.status }));
    });
    request.send(file);
  });
}

/** Tells whoever listens further up; the page shows it as a message. */
export function report(node, error) {
  node.dispatchEvent(new CustomEvent("problem", { bubbles: true, detail: error }));
}

/** A button that picks a file, sends it, and hands its path to `onPath(path, file)`. `name`: for those who hear it. */
export function uploadButton(kind, name, onPath) {
  const input = element("input", { type: "file", accept: ACCEPT[kind], "aria-label": `Upload ${name}` });
  const text = element("span", { "aria-hidden": "true" }, "Upload");
  const label = element("label", { class: "upload" }, input, text);
  input.addEventListener("change", async (event) => {
    // The field around it listens for values, and this is none yet.
    event.stopPropagation();
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    label.dataset.busy = "true";
    try {
      const stored = await upload(file, (part) => { text.textContent = part < 1 ? `${Math.round(100 * part)} %` : "…"; });
      onPath(stored.path, file);
    } catch (error) {
      report(label, error);
    } finally {
      delete label.dataset.busy;
      text.textContent = "Upload";
    }
  });
  return label;
}
