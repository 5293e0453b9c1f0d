// A list of objects as rows: the first field of each is a text over the whole width, the others stand below it.

import { element, numberInput, pathInput, readNumber } from "./inputs.js";
import { uploadButton } from "./uploads.js";

/** A row is a draft until it has a text and was read: no answer of the server is about it or takes it away. */
class Row {
  draft = true;
  #told = "";

  constructor(spec, listId, catalog, onRemove) {
    this.spec = spec;
    this.catalog = catalog;
    [this.main, ...this.others] = spec.columns.map((column) => ({ column, input: this.#input(column) }));
    if (catalog) this.main.input.setAttribute("list", listId);
    this.pick = spec.widget === "images" ? uploadButton("image", "an image for this row", (path) => this.#fill(path)) : "";
    this.remove = element("button", { type: "button", class: "icon" }, "×");
    this.remove.addEventListener("click", onRemove);
    const small = this.others.map(({ column, input }) => element("label", { title: column.description }, column.label, input));
    this.hint = element("div", { class: "hint-text", "aria-live": "polite" });
    this.element = element("li", {}, this.main.input, element("div", { class: "small" }, ...small, this.pick), this.remove, this.hint);
    this.main.input.addEventListener("input", () => this.#describe());
    this.write({});
  }

  get blank() {
    return this.main.input.value.trim() === "";
  }

  get inputs() {
    return [this.main, ...this.others];
  }

  /** Numbers the row for those who hear it. */
  call(name) {
    this.name = name;
    this.main.input.setAttribute("aria-label", `${name}: ${this.main.column.label.toLowerCase()}`);
    this.remove.setAttribute("aria-label", `Remove ${name}`);
  }

  read() {
    return Object.fromEntries(this.inputs.map(({ column, input }) => {
      if (column.text) return [column.name, input.value.trim()];
      try {
        return [column.name, readNumber(input, column)];
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        throw new RangeError(`${this.name}, ${column.label}: ${error.message}`);
      }
    }));
  }

  write(value) {
    for (const { column, input } of this.inputs) {
      // The next field may be typed into while the server still answers about the one before.
      if (input !== document.activeElement) input.value = value[column.name] ?? column.default ?? "";
    }
    this.#describe();
  }

  #input(column) {
    return column.text ? pathInput(null, this.spec.placeholder ?? "path on the server") : numberInput(column, null);
  }

  #fill(path) {
    this.main.input.value = path;
    this.main.input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  #describe() {
    if (!this.catalog) return;
    const { name, nodes, strength } = this.catalog.describe(this.main.input.value.trim());
    // A live region: equal text must not be read out again, and opened details stay open.
    if (this.#told !== name) this.hint.replaceChildren(...nodes);
    this.#told = name;
    for (const { column, input } of this.others) if (column.name === "strength") input.placeholder = strength;
  }
}

/** `catalog` offers texts for the first field and says what is known of one. */
export function rows(spec, id, catalog = null) {
  let list = [];
  const listId = `${id}-choices`;
  const items = element("ol");
  const add = element("button", { type: "button", class: "add" }, `Add ${/^[A-Z][a-z]+$/.test(spec.item) ? spec.item.toLowerCase() : spec.item}`);
  const group = element("div", { id, role: "group", "aria-labelledby": `${id}-label` }, items, add);
  if (catalog) group.append(catalog.choices(listId));

  const renumber = () => {
    list.forEach((row, i) => row.call(`${spec.item} ${i + 1}`));
    add.disabled = list.length >= spec.most;
  };
  const drop = (row) => {
    list = list.filter((other) => other !== row);
    row.element.remove();
    renumber();
  };
  const append = () => {
    const row = new Row(spec, listId, catalog, () => {
      const wasSent = !row.draft;
      const next = list[list.indexOf(row) + 1]?.remove ?? add;
      drop(row);
      next.focus();
      if (wasSent) group.dispatchEvent(new Event("change"));
    });
    list.push(row);
    items.append(row.element);
    renumber();
    return row;
  };
  add.addEventListener("click", () => append().main.input.focus());

  const sent = () => list.filter((row) => !row.draft);
  return {
    nodes: [group],
    count: () => list.filter((row) => !row.blank).length,
    group: true,
    read: () => {
      for (const row of list) row.draft = row.blank;
      return sent().map((row) => row.read());
    },
    write: (values) => {
      sent().slice(values.length).forEach(drop);
      values.forEach((value, i) => {
        const row = sent()[i] ?? append();
        row.draft = false;
        row.write(value);
      });
    },
    clear: () => [...list].forEach(drop),
    place: ([index, field]) => {
      const row = sent()[index];
      const part = row?.inputs.find(({ column }) => column.name === field);
      part?.input.setAttribute("aria-invalid", "true");
      return row ? [row.name, part?.column.label].filter(Boolean).join(", ") : "";
    },
    unmark: () => list.forEach((row) => row.inputs.forEach(({ input }) => input.removeAttribute("aria-invalid"))),
    events: ["change"],
  };
}
