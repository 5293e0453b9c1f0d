// The LoRAs that the server knows, as choices for a row and as advice about the one that is chosen.

import { element } from "./inputs.js";

function lastPart(path) {
  return path.split(/[/\\]/).at(-1);
}

function range({ recommended, low, high, stacked }) {
  const usual = `Strength ${low} to ${high}, best ${recommended}`;
  return stacked === null ? `${usual}.` : `${usual}; ${stacked} beside other LoRAs.`;
}

function advice({ facts, path, download }) {
  const title = element("p", {}, element("strong", {}, facts.name), ` ${range(facts.strength)}`);
  const more = element("details", {}, element("summary", {}, "How to use it"),
    element("p", {}, facts.purpose),
    element("p", {}, `Prompt: ${facts.prompt.hint}`),
    element("p", {}, `Give it: ${facts.preparation.steps}`));
  if (facts.notes) more.append(element("p", {}, facts.notes));
  const nodes = [title, more];
  if (path === null) {
    const missing = element("p", { class: "missing" }, "Not on the server yet.");
    if (download) missing.append(" Get it with ", element("code", {}, download));
    nodes.push(missing);
  }
  return nodes;
}

export class LoraCatalog {
  /** `list` is the answer of GET /api/loras. */
  constructor({ loras, files }) {
    this.loras = loras;
    this.files = files;
  }

  /** What is there first: the browser keeps the order. */
  choices(id) {
    const options = [
      ...this.loras.filter(({ path }) => path !== null).map(({ facts }) => [facts.id, facts.name]),
      ...this.files.map((path) => [path, lastPart(path)]),
      ...this.loras.filter(({ path }) => path === null).map(({ facts }) => [facts.id, `${facts.name} (not on the server)`]),
    ];
    return element("datalist", { id }, ...options.map(([value, label]) => element("option", { value, label })));
  }

  /** Advice about the LoRA of this name or path, and the strength that an empty field stands for. */
  describe(name) {
    const last = lastPart(name);
    const known = last && this.loras.find(({ facts }) => last === facts.id || last === facts.file);
    if (!known) return { name: "", nodes: [], strength: "1" };
    return { name: known.facts.id, nodes: advice(known), strength: String(known.facts.strength.recommended) };
  }
}
