// Prompts that wait for their turn: each is sent when the one before was on air for so many chunks. Kept by this page.

import { element, readNumber } from "./inputs.js";

const MOST = 20;

export class PromptQueue {
  #texts = [];
  #since = null;
  #playing = null;
  #sent = null;

  /** `send(text)` resolves with the prompt as the server calls it. */
  constructor(root, { box, send, toasts }) {
    this.box = box;
    this.send = send;
    this.toasts = toasts;
    this.folder = root;
    this.list = root.querySelector("ol");
    this.state = root.querySelector("#queue-state");
    this.chunks = root.querySelector("#queue-chunks");
    this.addButton = root.querySelector("#queue-add");
    this.addButton.addEventListener("click", () => this.#add());
    this.#show();
  }

  /** The prompt of chunk `chunk`, which is on air. */
  async onAir(chunk, playing) {
    if (chunk === null || playing === null) return;
    if (playing !== this.#playing) [this.#playing, this.#since] = [playing, chunk];
    // What was sent comes on air some chunks later: its time starts then.
    const waits = this.#sent !== null && this.#sent !== playing;
    if (!this.#texts.length || waits || chunk - this.#since < this.#hold()) return;
    const text = this.#texts.shift();
    this.#show();
    this.#sent = text;
    try {
      this.#sent = await this.send(text);
    } catch (error) {
      this.#sent = null;
      this.toasts.error(error);
    }
  }

  #hold() {
    try {
      return readNumber(this.chunks, { nullable: false });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      return 1;
    }
  }

  #add() {
    const text = this.box.value.trim();
    if (text === "") { this.toasts.show("Write a prompt first.", "error"); this.box.focus(); return; }
    this.#texts.push(text);
    this.#show();
    this.folder.open = true;
  }

  #show() {
    const count = this.#texts.length;
    this.state.textContent = count ? `${count} waiting` : "";
    this.addButton.disabled = count >= MOST;
    this.list.replaceChildren(...this.#texts.map((text, i) => {
      const remove = element("button", { type: "button", class: "icon", "aria-label": `Remove prompt ${i + 1} from the queue` }, "×");
      remove.addEventListener("click", () => {
        this.#texts.splice(i, 1);
        this.#show();
        (this.list.querySelectorAll("button")[i] ?? this.addButton).focus();
      });
      return element("li", {}, element("span", {}, text), remove);
    }));
  }
}
