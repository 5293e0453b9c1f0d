// The panel: one field per parameter, rendered from the schema, kept in step with the server.

import { controlsOf } from "./schema.js";
import { createWidget } from "./widgets.js";

const LOAD_REASON = "Decided when the model loads. Restart the server to change it.";

const GROUP_GAP = 5;

/** One labelled control with room for the server's sentence below it. */
class Field {
  constructor(spec, onChange) {
    this.spec = spec;
    this.dirty = false;
    const id = `field-${spec.name}`;
    this.widget = createWidget(spec, id);
    this.element = document.createElement("div");
    this.element.className = `field ${spec.widget}`;
    this.element.dataset.name = spec.name;
    const label = document.createElement("label");
    label.htmlFor = id;
    label.id = `${id}-label`;
    label.textContent = spec.label;
    // "Frames per chunk" has said its unit already.
    if (spec.unit && !spec.label.toLowerCase().includes(spec.unit.toLowerCase())) {
      const unit = document.createElement("small");
      unit.textContent = spec.unit;
      label.append(" ", unit);
    }
    this.reset = document.createElement("button");
    this.reset.type = "button";
    this.reset.className = "reset";
    this.reset.textContent = "Reset";
    this.reset.hidden = true;
    this.reset.setAttribute("aria-label", `Reset ${spec.label} to its default`);
    this.reset.addEventListener("click", () => { this.widget.write(spec.default); this.#commit(onChange); });
    const head = document.createElement("div");
    head.className = "head";
    head.append(label, this.reset);
    const body = document.createElement("div");
    body.className = "body";
    body.append(...this.widget.nodes);
    this.message = document.createElement("p");
    this.message.className = "message";
    this.message.id = `${id}-message`;
    this.message.setAttribute("role", "status");
    this.element.append(head, body, this.message);
    this.element.title = spec.description;
    this.#describe(id);
    if (spec.kind === "load") this.#disable();
    else this.#listen(onChange);
  }

  /** A value from the server. Leaves alone what a person is changing right now. */
  show(value) {
    this.value = value;
    if (!this.dirty && !this.element.contains(document.activeElement)) this.widget.write(value);
    const changed = JSON.stringify(value ?? null) !== JSON.stringify(this.spec.default ?? null);
    this.reset.hidden = !changed || this.spec.kind === "load" || this.spec.default === undefined;
  }

  /** The server took it: what it holds now replaces what was typed, even under the cursor. */
  settle(value) {
    this.dirty = false;
    this.widget.write(value);
    this.say("");
    this.show(value);
  }

  /** tone: "error" or "note". An empty sentence clears. */
  say(sentence, tone = "note") {
    this.message.textContent = sentence;
    this.element.dataset.tone = sentence ? tone : "";
    for (const node of this.widget.nodes) node.setAttribute("aria-invalid", String(Boolean(sentence) && tone === "error"));
  }

  #commit(onChange) {
    this.dirty = true;
    let value;
    try {
      value = this.widget.read();
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      this.say(error.message, "error");
      return;
    }
    onChange(this.spec.name, value);
  }

  #listen(onChange) {
    const commit = () => this.#commit(onChange);
    for (const node of this.widget.nodes) {
      for (const event of this.widget.events) node.addEventListener(event, commit);
    }
    this.widget.live?.addEventListener("input", commit);
  }

  #describe(id) {
    const help = document.createElement("p");
    help.className = "help";
    help.id = `${id}-help`;
    help.textContent = this.spec.kind === "load" ? `${this.spec.description} ${LOAD_REASON}`.trim() : this.spec.description;
    this.element.append(help);
    for (const node of this.widget.nodes) node.setAttribute("aria-describedby", `${help.id} ${this.message.id}`);
  }

  #disable() {
    for (const node of this.widget.nodes) node.disabled = true;
    this.element.title = `${this.spec.description} ${LOAD_REASON}`.trim();
  }
}

export class ControlPanel {
  #fields = new Map();

  constructor(form, onChange) {
    this.form = form;
    this.onChange = onChange;
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Throws when the schema asks for a widget that does not exist. */
  render(schema) {
    const specs = controlsOf(schema);
    this.#fields = new Map(specs.map((spec) => [spec.name, new Field(spec, this.onChange)]));
    const live = this.#group("Live controls", specs.filter(({ kind }) => kind !== "load"));
    const load = this.#group("Fixed while running", specs.filter(({ kind }) => kind === "load"));
    if (load) {
      const reason = document.createElement("p");
      reason.className = "reason";
      reason.textContent = LOAD_REASON;
      load.querySelector("legend").after(reason);
    }
    this.form.replaceChildren(...[live, load].filter(Boolean));
  }

  get names() {
    return this.#fields;
  }

  showAll(parameters) {
    for (const [name, field] of this.#fields) if (name in parameters) field.show(parameters[name]);
  }

  settle(name, value) {
    this.#fields.get(name)?.settle(value);
  }

  /** Whether a field took the sentence; the caller has to show it elsewhere if none did. */
  say(name, sentence, tone) {
    const field = this.#fields.get(name);
    field?.say(sentence, tone);
    return field !== undefined;
  }

  #group(title, specs) {
    if (!specs.length) return null;
    const group = document.createElement("fieldset");
    const legend = document.createElement("legend");
    legend.textContent = title;
    const elements = specs.map(({ name }) => this.#fields.get(name).element);
    // A leap in the order numbers is where the server starts a new subject.
    specs.forEach(({ order }, i) => elements[i].classList.toggle("group", i > 0 && order - specs[i - 1].order > GROUP_GAP));
    group.append(legend, ...elements);
    return group;
  }
}
