// Carries changed values to the server: gathered for a moment, one request at a time.

import { api } from "./api.js";

const GATHER_MS = 250; // a dragged slider makes a request per quarter second, not per pixel

export class ParameterSync {
  #pending = {};
  #timer = null;
  #busy = false;

  constructor({ panel, toasts }) {
    this.panel = panel;
    this.toasts = toasts;
  }

  change(name, value) {
    this.#pending[name] = value;
    this.#schedule();
  }

  /** Takes over what the server holds, e.g. after another viewer changed it. Not while changes are on their way. */
  async refresh() {
    if (this.#busy || this.#waiting()) return;
    const parameters = await api.parameters();
    if (!this.#busy && !this.#waiting()) this.panel.showAll(parameters);
  }

  #waiting() {
    return Object.keys(this.#pending).length > 0;
  }

  #schedule() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#flush(), GATHER_MS);
  }

  async #flush() {
    if (this.#busy || !this.#waiting()) return;
    const changes = this.#pending;
    this.#pending = {};
    this.#busy = true;
    try {
      this.#applied(changes, await api.patchParameters(changes));
    } catch (error) {
      this.#refused(changes, error);
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
    this.panel.showAll(parameters);
    for (const sentence of adjustments) this.#explain(sentence);
  }

  /** At the field that the sentence is about (it names it first), else as a message. */
  #explain(sentence) {
    const subject = sentence.split(/[\s:]/, 1)[0];
    if (!this.panel.say(subject, sentence, "note")) this.toasts.show(sentence);
  }

  #refused(changes, error) {
    const named = new Set();
    for (const { loc, message } of error.fields ?? []) {
      const name = loc.find((part) => part in changes);
      if (name === undefined || !this.panel.say(name, message, "error")) this.toasts.show(message, "error");
      if (name !== undefined) named.add(name);
    }
    if (named.size === 0) {
      if (!error.fields?.length) this.toasts.error(error);
      return;
    }
    // The server takes all or nothing, so the good values that travelled with a bad one go again.
    for (const [name, value] of Object.entries(changes)) {
      if (!named.has(name) && !(name in this.#pending)) this.#pending[name] = value;
    }
  }
}
