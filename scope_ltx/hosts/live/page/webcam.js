// A camera, and a microphone if wanted: looked at here first, then sent to the server as what drives the stream.

import { element } from "./inputs.js";
import { WhipSender } from "./whip.js";

const PICTURE = { width: { ideal: 768 }, height: { ideal: 512 }, frameRate: { ideal: 30 } };
const WHY = {
  NotAllowedError: "The browser was not allowed to use it. Allow the camera for this page.",
  NotFoundError: "There is no such camera or microphone.",
  NotReadableError: "Another program is using the camera.",
  OverconstrainedError: "This camera has gone. Choose another.",
};
const PHASES = {
  off: "", preview: "Only you see this.", connecting: "Connecting…", live: "The stream is driven by this camera.",
};
const GONE = {
  video: "The camera has gone, so nothing is sent. Plug it in again or choose another, and open it.",
  audio: "The microphone has gone: the picture goes on without sound. Plug it in again, choose it and reopen the camera.",
};

export class Webcam {
  #stream = null;
  #sender = null;

  constructor(root, { onUse, onProblem }) {
    this.onUse = onUse;
    this.onProblem = onProblem;
    this.video = root.querySelector("video");
    this.camera = root.querySelector("#camera");
    this.microphone = root.querySelector("#microphone");
    this.look = root.querySelector("#camera-look");
    this.send = root.querySelector("#camera-send");
    this.state = root.querySelector("#camera-state");
    this.advice = root.querySelector("#camera-advice");
    this.look.addEventListener("click", () => (this.#stream ? this.stop() : this.#open()));
    this.send.addEventListener("click", () => (this.phase === "preview" ? this.#publish() : this.#unpublish()));
    for (const choice of [this.camera, this.microphone]) choice.addEventListener("change", () => this.#change());
    this.#show("off");
    if (!navigator.mediaDevices) {
      // The browser gives cameras only to pages that nobody in between can have changed.
      this.look.disabled = true;
      this.state.textContent = "The browser gives cameras only to https pages and to localhost.";
      return;
    }
    navigator.mediaDevices.addEventListener("devicechange", () => this.#list());
    this.#list();
  }

  /** Whether there is a LoRA that looks at what comes. */
  hint(hasLora) {
    this.advice.hidden = hasLora;
  }

  stop() {
    this.#unpublish();
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = this.video.srcObject = null;
    this.#show("off");
  }

  async #list() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    fill(this.camera, devices.filter(({ kind }) => kind === "videoinput"), [["", "Default camera"]]);
    fill(this.microphone, devices.filter(({ kind }) => kind === "audioinput"), [["off", "No sound"], ["", "Default microphone"]]);
  }

  async #open() {
    const chosen = ({ value }) => (value ? { deviceId: { exact: value } } : {});
    const sound = this.microphone.value === "off" ? false : { ...chosen(this.microphone), echoCancellation: false };
    this.look.disabled = true;
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: { ...PICTURE, ...chosen(this.camera) }, audio: sound });
    } catch (error) {
      this.onProblem(new Error(WHY[error.name] ?? error.message));
      return;
    } finally {
      this.look.disabled = false;
    }
    // A device that is unplugged ends its track. One that is stopped here says nothing.
    const opened = this.#stream;
    for (const track of opened.getTracks()) track.addEventListener("ended", () => this.#lose(opened, track.kind));
    this.video.srcObject = this.#stream;
    this.#show("preview");
    this.#list(); // names are told only to who was allowed a device
  }

  #lose(stream, kind) {
    if (this.#stream !== stream) return; // its camera has gone as well, or was closed meanwhile
    if (kind === "video") this.stop();
    else this.#show(this.phase);
    this.onProblem(new Error(GONE[kind]));
  }

  async #change() {
    if (!this.#stream) return;
    const sending = this.#sender !== null;
    this.stop();
    await this.#open();
    if (sending && this.#stream) await this.#publish();
  }

  async #publish() {
    this.#show("connecting");
    const sender = new WhipSender("whip");
    this.#sender = sender;
    const failed = (error) => {
      if (this.#sender !== sender) return; // it was stopped meanwhile, and another one may be sending
      this.#unpublish();
      this.onProblem(error);
    };
    try {
      await sender.start(this.#stream, () => failed(new Error("The camera's connection to the server was lost.")));
      if (this.#sender === sender) this.#show("live");
    } catch (error) {
      failed(error);
    }
  }

  #unpublish() {
    this.#sender?.stop();
    this.#sender = null;
    if (this.#stream) this.#show("preview");
  }

  #show(phase) {
    this.phase = phase;
    this.video.hidden = phase === "off";
    this.look.textContent = phase === "off" ? "Open camera" : "Close camera";
    this.send.hidden = phase === "off";
    this.send.textContent = phase === "preview" ? "Send to the stream" : "Stop sending";
    this.send.classList.toggle("primary", phase === "preview");
    const deaf = this.#stream?.getAudioTracks().some(({ readyState }) => readyState === "ended");
    this.state.textContent = deaf ? `${PHASES[phase]} ${GONE.audio}` : PHASES[phase];
    this.onUse(phase === "live");
  }
}

function fill(select, devices, first) {
  const before = select.value;
  // Before a device was allowed, all of them have neither a name nor an id.
  const known = devices.filter(({ deviceId }) => deviceId && deviceId !== "default");
  const choices = [...first, ...known.map(({ deviceId, label }, i) => [deviceId, label || `Device ${i + 1}`])];
  select.replaceChildren(...choices.map(([value, text]) => element("option", { value }, text)));
  select.value = choices.some(([value]) => value === before) ? before : first[0][0];
}
