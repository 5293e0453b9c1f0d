// The prompt box: what is playing, what is queued, what is only typed.

import { Blend } from "./blend.js";

const NOTHING = { phase: "", text: "" };

export class PromptBox {
  #queued = null;
  #playing = null;
  #before = null;
  #stale = false;

  constructor(form, { sendPrompt, sendBlend, toasts }) {
    this.form = form;
    this.box = form.querySelector("textarea");
    this.button = form.querySelector("#send");
    this.line = form.querySelector("#prompt-state");
    this.problem = form.querySelector("#prompt-error");
    this.sendPrompt = sendPrompt;
    this.sendBlend = sendBlend;
    this.blend = new Blend(form.querySelector("#blend"));
    this.toasts = toasts;
    const apple = /Mac|iPhone|iPad/.test(navigator.platform);
    form.querySelector("#send-keys").textContent = apple ? "⌘ ↵" : "Ctrl ↵";
    form.addEventListener("submit", (event) => { event.preventDefault(); this.#submit(); });
    this.box.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    this.box.addEventListener("input", () => this.#fail(""));
  }

  /** The server's prompt at start: fills the box unless something was typed already. */
  start(prompt) {
    if (this.box.value === "") this.box.value = prompt;
  }

  /** `playing` is the prompt of the chunk on air, or null before the first; `asked` what the stream heads for,
   *  whoever asked, or null while no server says so. */
  onAir(playing, asked) {
    this.#playing = playing;
    // A status that was on its way while a prompt was sent may not know of it.
    if (asked !== null && !this.#stale && asked !== this.#queued) this.#queued = null;
    if (asked !== null) this.#stale = false;
    // While a blend takes over, what plays is neither what was before nor what was sent.
    const fading = this.#before !== null && playing !== null && playing !== this.#before;
    if (this.#queued !== null && (fading || playing === this.#queued)) this.#queued = null;
    this.#show();
  }

  /** Sends `text` with the fade that is set and without others blended in. Resolves with it as the server calls it. */
  async sendNext(text) {
    const chunks = this.blend.chunks();
    const answer = chunks ? await this.sendBlend([{ text, weight: 1 }], chunks) : await this.sendPrompt(text);
    this.#queue(answer.prompt, chunks > 0);
    return answer.prompt;
  }

  async #submit() {
    const prompt = this.box.value.trim();
    if (prompt === "") {
      this.#fail("Write what the stream should show first.");
      this.box.focus();
      return;
    }
    this.button.disabled = true;
    try {
      const blend = this.blend.read(prompt);
      const answer = blend ? await this.sendBlend(blend.prompts, blend.chunks) : await this.sendPrompt(prompt);
      this.#fail("");
      this.#queue(answer.prompt, blend !== null);
    } catch (error) {
      if (error instanceof RangeError || error.fields?.length) this.#fail(error.message);
      else this.toasts.error(error);
    } finally {
      this.button.disabled = false;
    }
  }

  /** The server may tidy the text; `taken`, what it gives back, is what it will report as playing. */
  #queue(taken, fades) {
    this.#before = fades ? this.#playing : null;
    this.#queued = taken === this.#playing ? null : taken;
    this.#stale = true;
    this.#show();
  }

  #fail(sentence) {
    this.problem.textContent = sentence;
    this.box.setAttribute("aria-invalid", String(sentence !== ""));
  }

  #show() {
    const { phase, text } = this.#state();
    this.line.dataset.phase = phase;
    const span = this.line.querySelector("span");
    // The region is read aloud on every change, so leave equal text alone.
    if (span.textContent !== text) span.textContent = text;
    span.title = this.#queued ?? this.#playing ?? "";
  }

  #state() {
    if (this.#queued !== null) return { phase: "queued", text: `Queued for the next chunk: ${this.#queued}` };
    if (this.#playing) return { phase: "playing", text: `Now playing: ${this.#playing}` };
    return NOTHING;
  }
}
