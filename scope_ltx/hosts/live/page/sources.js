// What drives the stream beside the prompt: a first image, a webcam, a clip, a sound, a voice. One tab each; a dot
// marks what is in use. The parameters are the server's, so another viewer's choice shows here as well.

import { element } from "./inputs.js";
import { Tabs } from "./tabs.js";
import { report, uploadButton } from "./uploads.js";
import { Webcam } from "./webcam.js";

const KINDS = [
  {
    key: "image", kind: "image", field: "i2v_image", set: {}, name: "a first image",
    used: ({ i2v_image: path }) => path !== null,
    text: "Every chunk starts from this image. How strictly: “Image strength” below.",
  },
  {
    key: "clip", kind: "video", field: "reference_video", set: {}, name: "a clip",
    used: ({ reference_video: path }) => path !== null,
    text: "An in-context LoRA looks at this clip. Choose one under “LoRAs”.",
  },
  {
    key: "music", kind: "audio", field: "audio_input", set: { audio_mode: "driving" }, name: "a sound",
    used: ({ audio_input: path, audio_mode: mode }) => path !== null && mode === "driving",
    text: "This becomes the sound of the stream, and the picture follows it.",
  },
  {
    key: "voice", kind: "audio", field: "audio_input", set: { audio_mode: "id_lora" }, name: "a voice",
    used: ({ audio_input: path, audio_mode: mode }) => path !== null && mode === "id_lora",
    text: "About five seconds of one person speaking. The stream speaks with this voice; it needs the ID-LoRA.",
  },
];
const CLEARED = { i2v_image: null, images: [], reference_video: null, audio_input: null };

function nameOf(path) {
  return path.split(/[/\\]/).at(-1);
}

/** One file: what it is, a look at it, and how to be rid of it. */
class FileSource {
  constructor(root, spec, change) {
    this.spec = spec;
    this.change = change;
    this.sent = new Map(); // what this page has uploaded can be shown again: path -> {name, url}
    this.file = element("p", { class: "file" });
    this.look = element("div", { class: "look" });
    this.remove = element("button", { type: "button" }, "Remove");
    this.remove.addEventListener("click", () => { this.change({ [spec.field]: null }); this.pick.querySelector("input").focus(); });
    this.pick = uploadButton(spec.kind, spec.name, (path, file) => this.#take(path, file));
    this.pick.classList.add("wide");
    root.append(element("p", {}, spec.text), this.look, this.file, element("div", { class: "row" }, this.pick, this.remove));
    for (const name of ["dragover", "drop"]) root.addEventListener(name, (event) => this.#drop(event));
  }

  show(parameters) {
    const path = this.spec.used(parameters) ? parameters[this.spec.field] : null;
    this.remove.hidden = path === null;
    if (this.path === path) return;
    this.path = path;
    const sent = this.sent.get(path);
    this.file.textContent = path === null ? "" : sent?.name ?? nameOf(path);
    this.look.replaceChildren(...(sent ? [this.#lookAt(sent)] : []));
  }

  #take(path, file) {
    this.sent.set(path, { name: file.name, url: URL.createObjectURL(file) });
    this.change({ [this.spec.field]: path, ...this.spec.set });
  }

  #lookAt({ name, url }) {
    if (this.spec.kind === "image") return element("img", { src: url, alt: name });
    if (this.spec.kind === "audio") return element("audio", { src: url, controls: "", "aria-label": name });
    return element("video", { src: url, controls: "", muted: "", playsinline: "", "aria-label": name });
  }

  /** A dropped file goes the way of a picked one. */
  #drop(event) {
    event.preventDefault();
    if (event.type !== "drop" || !event.dataTransfer.files.length) return;
    const input = this.pick.querySelector("input");
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }
}

export class Sources {
  #files = [];

  /** `change({name: value, ...})` sends parameters to the server. */
  constructor(root, change) {
    this.tabs = new Tabs(root);
    this.webcam = new Webcam(root.querySelector("#source-webcam"), {
      onUse: (used) => this.tabs.mark("webcam", used),
      onProblem: (error) => report(root, error),
    });
    for (const spec of KINDS) this.#files.push(new FileSource(root.querySelector(`#source-${spec.key}`), spec, change));
    root.querySelector("#only-text").addEventListener("click", () => { this.webcam.stop(); change(CLEARED); });
  }

  show(parameters) {
    for (const file of this.#files) {
      file.show(parameters);
      this.tabs.mark(file.spec.key, file.spec.used(parameters));
    }
    this.webcam.hint(parameters.loras.length > 0);
  }
}
