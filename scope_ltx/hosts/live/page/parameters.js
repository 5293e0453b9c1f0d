// Carries changed values to the server: gathered for a moment, one request at a time.

import { api } from "./api.js";

const GATHER_MS = 250; // a dragged slider makes a request per quarter second, not per pixel
const RETRY_MS = 2000;

export class ParameterSync {
  #pending = {};
  #alone = [];
  #unfit = {};
  #unheard = false;
  #timer = null;
  #busy = false;

  /** `onParameters` is called with all of them whenever the server has told them. */
  constructor({ panel, toasts, onParameters }) {
    this.panel = panel;
    this.toasts = toasts;
    this.onParameters = onParameters;
  }

  /** Several that belong together travel together. */
  changeAll(changes) {
    for (const [name, value] of Object.entries(changes)) this.change(name, value);
  }

  change(name, value) {
    this.#pending[name] = value;
    delete this.#unfit[name];
    this.#schedule();
  }

  /** Takes over what the server holds, e.g. after another viewer changed it. Not while changes are on their way. */
  async refresh() {
    if (this.#busy || this.#waiting()) return;
    const parameters = await api.parameters();
    if (!this.#busy && !this.#waiting()) this.#show(parameters);
  }

  #show(parameters) {
    this.panel.showAll(parameters);
    this.onParameters(parameters);
  }

  #waiting() {
    return Object.keys(this.#pending).length > 0 || this.#alone.length > 0;
  }

  #schedule() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#flush(), this.#unheard ? RETRY_MS : GATHER_MS);
  }

  async #flush() {
    if (this.#busy || !this.#waiting()) return;
    const changes = this.#alone.shift() ?? this.#pending;
    if (changes === this.#pending) this.#pending = {};
    this.#busy = true;
    try {
      this.#applied(changes, await api.patchParameters(changes));
      this.#unheard = false;
    } catch (error) {
      if (error.status === 0) this.#notHeard(changes, error);
      else this.#refused(changes, error);
    } finally {
      this.#busy = false;
    }
    if (this.#waiting()) this.#schedule();
  }

  #applied(changes, { adjustments = [], parameters }) {
    for (const name of Object.keys(changes)) {
      // Changed again meanwhile: the newer value is on its way and must not be overwritten.
      if (!(name in this.#pending)) this.panel.settle(name, parameters[name]);
    }
    this.#show(parameters);
    for (const sentence of adjustments) this.#explain(sentence);
    // What did not fit may fit now. A select would not send the value that it shows already.
    this.#pending = { ...this.#unfit, ...this.#pending };
    this.#unfit = {};
  }

  /** At the field that the sentence is about (it names it first), else as a message. */
  #explain(sentence) {
    const subject = sentence.split(/[\s:]/, 1)[0];
    if (!this.panel.say(subject, sentence, "note")) this.toasts.show(sentence);
  }

  /** There was no answer: the same again, until there is one. */
  #notHeard(changes, error) {
    if (!this.#unheard) this.toasts.error(error);
    this.#unheard = true;
    this.#pending = { ...changes, ...this.#pending };
    for (const name of Object.keys(changes)) this.panel.say(name, "Not sent yet.", "note");
  }

  #refused(changes, error) {
    this.#unheard = false;
    const fields = error.fields ?? [];
    if (!fields.length) {
      this.toasts.error(error);
      for (const name of Object.keys(changes)) this.panel.say(name, `Not taken: ${error.message}`, "error");
      return;
    }
    const own = fields.filter(({ loc }) => loc.some((part) => part in changes));
    const names = Object.keys(changes);
    if (!own.length && names.length > 1) {
      // The values do not fit another parameter, and nothing says which of them: each is tried alone.
      this.#alone.push(...names.map((name) => ({ [name]: changes[name] })));
      return;
    }
    const named = new Set();
    for (const { loc, message } of own) {
      const at = loc.findIndex((part) => part in changes);
      this.panel.refuse(loc[at], message, loc.slice(at + 1));
      named.add(loc[at]);
    }
    if (!own.length) Object.assign(this.#unfit, changes);
    for (const { loc, message } of own.length ? [] : fields) this.#elsewhere(names[0], loc, message);
    // The server takes all or nothing, so the good values that travelled with a bad one go again.
    for (const [name, value] of own.length ? Object.entries(changes) : []) {
      if (!named.has(name) && !(name in this.#pending)) this.#pending[name] = value;
    }
  }

  /** The value that was changed is fine by itself; the parameter that it does not fit is called by its label. */
  #elsewhere(changed, loc, message) {
    const label = loc.map((part) => this.panel.label(part)).find(Boolean);
    this.panel.refuse(changed, label ? `${label}: ${message}` : message, []);
  }
}
