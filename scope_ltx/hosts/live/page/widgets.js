// One function per kind of widget. Each returns {nodes, read, write, events}:
// `read()` gives the value or throws a RangeError with a sentence, `write(value)` shows one.

function element(tag, attributes = {}) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, String(value));
  }
  return node;
}

function readNumber(input, spec) {
  // `badInput` is text that is no number at all: the input's value is then empty, which must not pass for null.
  if (input.validity.badInput) throw new RangeError("A number is needed here.");
  if (input.value.trim() === "") {
    if (spec.nullable) return null;
    throw new RangeError("A number is needed here.");
  }
  const value = Number(input.value);
  // Beyond 2^53 JavaScript rounds: the server would get a neighbour of the number that was typed.
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    throw new RangeError(`A browser can send whole numbers up to ${Number.MAX_SAFE_INTEGER}.`);
  }
  return value;
}

function numberInput(spec, id) {
  return element("input", {
    id, type: "number", min: spec.min, max: spec.max, step: spec.step ?? "any",
    inputmode: spec.integer ? "numeric" : "decimal", placeholder: spec.nullable ? "off" : null, autocomplete: "off",
  });
}

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

/** "linear_quadratic" reads as "Linear quadratic". */
function words(value) {
  const text = String(value).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function select(spec, id) {
  const input = element("select", { id });
  const values = spec.nullable ? [null, ...spec.choices] : spec.choices;
  values.forEach((value, index) => {
    const option = element("option", { value: index });
    option.textContent = value === null ? "Off" : words(value);
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
  const input = element("input", {
    id, type: "text", placeholder: "none: a path on the server", autocomplete: "off", spellcheck: "false",
  });
  return {
    nodes: [input],
    read: () => input.value.trim() || (spec.nullable ? null : ""),
    write: (value) => { input.value = value ?? ""; },
    events: ["change"],
  };
}

function sigmas(spec, id) {
  const input = element("input", {
    id, type: "text", placeholder: "off: 1, 0.75, 0.4, 0", autocomplete: "off", spellcheck: "false",
  });
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
    events: ["change"],
  };
}

const WIDGETS = { number, slider, select, toggle, image: path, audio: path, sigmas };

/** Raises TypeError for a widget the page does not know: the schema and the page then disagree. */
export function createWidget(spec, id) {
  const make = WIDGETS[spec.widget];
  if (!make) throw new TypeError(`${spec.name}: the page has no "${spec.widget}" widget`);
  return make(spec, id);
}
