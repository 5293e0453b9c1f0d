// One function per kind of widget. Each returns {nodes, read, write, events}:
// `read()` gives the value or throws a RangeError with a sentence, `write(value)` shows one. A list also has
// `place(path)`: what to call the part of it that a problem is about.

import { element, numberInput, pathInput, readNumber, words } from "./inputs.js";
import { rows } from "./rows.js";
import { uploadButton } from "./uploads.js";

function number(spec, id) {
  const input = numberInput(spec, id);
  return {
    nodes: [input],
    read: () => readNumber(input, spec),
    write: (value) => { input.value = value ?? ""; },
    // Only finished entries: "1280" passes through 1, 12 and 128, none of which anyone asked for.
    events: ["change"],
  };
}

function slider(spec, id) {
  // A slider needs two ends. Without them, typing is the honest control.
  if (spec.min === null || spec.max === null) return number(spec, id);
  const typed = numberInput(spec, id);
  const step = spec.step ?? (spec.max - spec.min) / 100;
  const range = element("input", { type: "range", min: spec.min, max: spec.max, step, "aria-labelledby": `${id}-label` });
  const paint = () => {
    const part = (Number(range.value) - spec.min) / (spec.max - spec.min);
    range.style.setProperty("--part", `${100 * part}%`);
  };
  range.addEventListener("input", () => { typed.value = range.value; paint(); });
  typed.addEventListener("input", () => { range.value = typed.value; paint(); });
  return {
    nodes: [range, typed],
    read: () => readNumber(typed, spec),
    write: (value) => { typed.value = value ?? ""; range.value = value ?? spec.min; paint(); },
    events: ["change"],
    live: range, // a drag sends on its way, not only at its end
  };
}

function select(spec, id) {
  const input = element("select", { id });
  const values = spec.nullable ? [null, ...spec.choices] : spec.choices;
  values.forEach((value, index) => {
    const option = element("option", { value: index });
    option.textContent = value === null ? "Off" : spec.labels[value] ?? words(value);
    input.append(option);
  });
  return {
    nodes: [input],
    read: () => values[input.selectedIndex],
    write: (value) => { input.selectedIndex = values.indexOf(value ?? null); },
    events: ["change"],
  };
}

function toggle(spec, id) {
  const input = element("input", { id, type: "checkbox", role: "switch" });
  return { nodes: [input], read: () => input.checked, write: (value) => { input.checked = Boolean(value); }, events: ["change"] };
}

function path(spec, id) {
  const input = pathInput(id, "none: a path on the server");
  const pick = uploadButton(spec.widget, `a file for ${spec.label}`, (stored) => {
    input.value = stored;
    input.dispatchEvent(new Event("change"));
  });
  return {
    nodes: [input],
    extra: [pick],
    read: () => input.value.trim() || (spec.nullable ? null : ""),
    write: (value) => { input.value = value ?? ""; },
    events: ["change"],
  };
}

function text(spec, id) {
  const input = element("textarea", { id, rows: 2, placeholder: "none" });
  return { nodes: [input], read: () => input.value.trim(), write: (value) => { input.value = value ?? ""; }, events: ["change"] };
}

/** Numbers in one line. Nothing in it is null where that is a value, else an empty list. */
function numbers(spec, id, placeholder) {
  const input = element("input", { id, type: "text", placeholder, autocomplete: "off", spellcheck: "false" });
  return {
    nodes: [input],
    read: () => {
      const parts = input.value.split(/[\s,;]+/).filter(Boolean);
      if (!parts.length && spec.nullable) return null;
      const values = parts.map(Number);
      if (values.some(Number.isNaN)) throw new RangeError("Numbers separated by commas are needed here.");
      return values;
    },
    write: (value) => { input.value = value ? value.join(", ") : ""; },
    place: ([index]) => (index === undefined ? "" : `Number ${index + 1}`),
    events: ["change"],
  };
}

const sigmas = (spec, id) => numbers(spec, id, "off: 1, 0.75, 0.4, 0");
const blocks = (spec, id) => numbers(spec, id, "such as 28, 29");
const images = (spec, id) => rows(spec, id);
const loras = (spec, id, catalog) => rows(spec, id, catalog);

const WIDGETS = {
  number, slider, select, toggle, text, sigmas, blocks, image: path, audio: path, video: path, images, loras,
};

/** Raises TypeError for a widget the page does not know: the schema and the page then disagree. */
export function createWidget(spec, id, catalog) {
  const make = WIDGETS[spec.widget];
  if (!make) throw new TypeError(`${spec.name}: the page has no "${spec.widget}" widget`);
  return make(spec, id, catalog);
}
