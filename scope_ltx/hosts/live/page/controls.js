// The panel: one field per parameter, rendered from the schema, kept in step with the server.

import { element } from "./inputs.js";
import { sectionsOf } from "./schema.js";
import { createWidget } from "./widgets.js";

const LOAD_REASON = "Decided when the model loads. Restart the server to change it.";

const GROUP_GAP = 5;

/** One labelled control with room for the server's sentence below it. */
class Field {
  constructor(spec, catalog, onChange) {
    this.spec = spec;
    this.dirty = false;
    const id = `field-${spec.name}`;
    this.widget = createWidget(spec, id, catalog);
    this.element = document.createElement("div");
    this.element.className = `field ${spec.widget}`;
    this.element.dataset.name = spec.name;
    // A group of inputs has a name, but no one input that its label could be for.
    const label = element(this.widget.group ? "span" : "label", { id: `${id}-label`, class: "label" }, spec.label);
    if (!this.widget.group) label.htmlFor = id;
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
    this.reset.addEventListener("click", () => {
      this.widget.clear?.();
      this.widget.write(spec.default);
      this.#commit(onChange);
    });
    const head = document.createElement("div");
    head.className = "head";
    head.append(label, this.reset);
    const body = document.createElement("div");
    body.className = "body";
    body.append(...this.widget.nodes, ...(this.widget.extra ?? []));
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
    this.reset.hidden = !this.changed || this.spec.kind === "load" || this.spec.default === undefined;
  }

  /** Whether the server holds something else than the default. */
  get changed() {
    return JSON.stringify(this.value ?? null) !== JSON.stringify(this.spec.default ?? null);
  }

  /** The server took it: what it holds now replaces what was typed, even under the cursor. */
  settle(value) {
    this.dirty = false;
    this.widget.write(value);
    this.say("");
    this.show(value);
  }

  /** tone: "error" or "note". An empty sentence clears. `path`: which part of a list it is about. */
  say(sentence, tone = "note", path = []) {
    this.widget.unmark?.();
    const place = path.length ? this.widget.place?.(path) : "";
    if (place) sentence = `${place}: ${sentence}`;
    this.message.textContent = sentence;
    this.element.dataset.tone = sentence ? tone : "";
    const wrong = Boolean(sentence) && tone === "error";
    if (!this.widget.group) for (const node of this.widget.nodes) node.setAttribute("aria-invalid", String(wrong));
    // A problem in a folded section would go unseen.
    if (wrong) this.element.closest("details").open = true;
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

/** Fields under one heading, which folds. Folded, it says how many of them differ from their default. */
class Section {
  constructor({ title, folded }, fields) {
    this.fields = fields;
    this.count = element("small");
    const id = `section-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;
    const heading = element("h2", { id }, title);
    const group = element("div", { role: "group", "aria-labelledby": id });
    if (fields.every(({ spec }) => spec.kind === "load")) group.append(element("p", { class: "reason" }, LOAD_REASON));
    fields.forEach(({ element: field, spec }, i) => {
      // A leap in the order numbers is where the server starts a new subject.
      field.classList.toggle("group", i > 0 && spec.order - fields[i - 1].spec.order > GROUP_GAP);
      group.append(field);
    });
    this.element = element("details", { class: "section" }, element("summary", {}, heading, this.count), group);
    this.element.open = !folded;
  }

  update() {
    const changed = this.fields.filter(({ changed }) => changed).length;
    const text = changed ? `${changed} changed` : "";
    if (this.count.textContent !== text) this.count.textContent = text;
  }
}

export class ControlPanel {
  #fields = new Map();
  #sections = [];

  constructor(form, onChange) {
    this.form = form;
    this.onChange = onChange;
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Throws when the schema asks for a widget that does not exist. */
  render(schema, catalog) {
    this.#fields = new Map();
    this.#sections = sectionsOf(schema).map((section) => {
      const fields = section.specs.map((spec) => new Field(spec, catalog, this.onChange));
      for (const field of fields) this.#fields.set(field.spec.name, field);
      return new Section(section, fields);
    });
    this.form.replaceChildren(...this.#sections.map((section) => section.element));
  }

  get names() {
    return this.#fields;
  }

  label(name) {
    return this.#fields.get(name)?.spec.label;
  }

  showAll(parameters) {
    for (const [name, field] of this.#fields) if (name in parameters) field.show(parameters[name]);
    for (const section of this.#sections) section.update();
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

  /** Why the server did not take a field's value. `path`: which part of a list it is about. */
  refuse(name, sentence, path) {
    this.#fields.get(name).say(sentence, "error", path);
  }
}
