// What several widgets are made of.

export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, String(value));
  }
  node.append(...children);
  return node;
}

/** "linear_quadratic" reads as "Linear quadratic". */
export function words(value) {
  const text = String(value).replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function numberInput(spec, id) {
  return element("input", {
    id, type: "number", min: spec.min, max: spec.max, step: spec.step ?? "any",
    inputmode: spec.integer ? "numeric" : "decimal", placeholder: spec.nullable ? "off" : null, autocomplete: "off",
  });
}

export function pathInput(id, placeholder) {
  return element("input", { id, type: "text", placeholder, autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
}

/** The number in an input, null for an empty one that may be. Throws a RangeError with a sentence. */
export function readNumber(input, spec) {
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
