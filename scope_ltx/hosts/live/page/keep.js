// What can be kept of the stream: a recording on the server, and a still on this machine.

import { element } from "./inputs.js";

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function size(nbytes) {
  return nbytes < 1e6 ? `${Math.ceil(nbytes / 1e3)} kB` : `${(nbytes / 1e6).toFixed(1)} MB`;
}

/** Hands `blob` to the browser's downloads. */
function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export class Recording {
  #told = null;

  constructor({ button, list, folder }, { api, toasts }) {
    this.button = button;
    this.list = list;
    this.folder = folder;
    this.api = api;
    this.toasts = toasts;
    this.active = false;
    button.addEventListener("click", () => this.#press());
    folder.addEventListener("toggle", () => { if (folder.open) this.#listFiles(); });
  }

  /** `status` is the server's: another viewer may have started or stopped it. */
  show(status) {
    this.button.hidden = this.folder.hidden = !status?.recordings;
    if (!status?.recordings) return;
    const { recording } = status;
    this.active = recording?.active ?? false;
    this.button.setAttribute("aria-pressed", String(this.active));
    this.button.querySelector("span").textContent = this.active ? clock(recording.seconds) : "Record";
    const problem = recording?.error ?? null;
    if (problem && problem !== this.#told) this.toasts.show(problem, "error");
    this.#told = problem;
  }

  async #press() {
    this.button.disabled = true;
    try {
      if (this.active) await this.#stop();
      else this.show({ recordings: true, recording: await this.api.startRecording() });
    } catch (error) {
      this.toasts.error(error);
    } finally {
      this.button.disabled = false;
    }
  }

  async #stop() {
    const done = await this.api.stopRecording();
    this.show({ recordings: true, recording: done });
    if (done.files.length && !done.error) this.toasts.show(`Recorded ${clock(done.seconds)}: ${done.files.join(", ")}`);
    if (this.folder.open) await this.#listFiles();
  }

  async #listFiles() {
    try {
      const files = await this.api.recordings();
      const items = files.map(({ name, nbytes }) => {
        const get = element("button", { type: "button", "aria-label": `Download ${name}` }, "Download");
        get.addEventListener("click", () => this.#download(get, name));
        return element("li", {}, element("span", {}, name), element("small", {}, size(nbytes)), get);
      });
      this.list.replaceChildren(...(items.length ? items : [element("li", {}, "Nothing yet.")]));
    } catch (error) {
      this.toasts.error(error);
    }
  }

  async #download(button, name) {
    button.disabled = true;
    try {
      // Not a plain link: the token travels in a header.
      save(await this.api.recording(name), name);
    } catch (error) {
      this.toasts.error(error);
    } finally {
      button.disabled = false;
    }
  }
}

/** The picture on show as a PNG. */
export function snapshot(video, toasts) {
  if (!video.videoWidth) return;
  const canvas = element("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const name = `scope-${new Date().toISOString().slice(0, 19).replaceAll(/[-:]/g, "").replace("T", "-")}.png`;
  canvas.toBlob((blob) => {
    if (!blob) { toasts.show("The browser cannot make a picture of this.", "error"); return; }
    save(blob, name);
    toasts.show(`Saved ${name}`);
  }, "image/png");
}
