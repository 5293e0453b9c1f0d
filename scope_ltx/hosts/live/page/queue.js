// Prompts that wait for their turn: each is sent when the one before was on air for so many chunks. Kept by this page.

import { element, readNumber } from "./inputs.js";

const MOST = 20;

export class PromptQueue {
  #texts = [];
  #since = null;
  #playing = null;
  #sending = false;
  #stale = false;

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

  /** `playing` is the prompt of chunk `chunk`, which is on air; `asked` what the stream heads for, whoever asked. */
  async onAir(chunk, playing, asked) {
    if (chunk === null || playing === null || this.#sending) return;
    if (playing !== this.#playing) [this.#playing, this.#since] = [playing, chunk];
    // A status that was on its way while a prompt was sent may not know of it.
    if (this.#stale) { this.#stale = false; return; }
    // What was asked for comes on air some chunks later: its time starts then.
    if (!this.#texts.length || asked !== playing || chunk - this.#since < this.#hold()) return;
    const text = this.#texts.shift();
    this.#show();
    this.#sending = true;
    try {
      await this.send(text);
    } catch (error) {
      // Kept, and tried again after as many chunks.
      this.#texts.unshift(text);
      this.#since = chunk;
      this.#show();
      this.toasts.error(error);
    } finally {
      this.#sending = false;
      this.#stale = true;
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
