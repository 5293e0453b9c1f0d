// From LTX2Config's JSON schema to what a control needs to know. Nothing about any one parameter stands here.

import { words } from "./inputs.js";

/** Follows `$ref` into `$defs` and folds `anyOf: [x, null]` into x with `nullable`. */
function resolve(property, root) {
  let node = { ...property };
  if (node.$ref) {
    const target = node.$ref.replace(/^#\//, "").split("/").reduce((at, key) => at?.[key], root);
    node = { ...target, ...node };
  }
  if (node.allOf?.length === 1) node = { ...resolve(node.allOf[0], root), ...node };
  if (!node.anyOf) return { ...node, nullable: node.type === "null" };
  const options = node.anyOf.map((option) => resolve(option, root));
  const real = options.filter((option) => option.type !== "null");
  return { ...(real[0] ?? {}), ...node, nullable: real.length < options.length };
}

function choices(node) {
  if (Array.isArray(node.enum)) return node.enum;
  return "const" in node ? [node.const] : [];
}

/** The fields of the objects in a list, or nothing for a list of something else. */
function columns(node, labels, root) {
  const item = node.items ? resolve(node.items, root) : {};
  return Object.entries(item.properties ?? {}).map(([name, property]) => {
    const column = control(name, property, root);
    return { ...column, label: labels[name] ?? words(name) };
  });
}

function control(name, property, root) {
  const node = resolve(property, root);
  const extra = property.ltx ?? {};
  const integer = node.type === "integer";
  const step = extra.step ?? (integer ? 1 : null);
  // HTML has no open interval: the smallest value that can be picked is one step inside.
  const inset = step ?? 0;
  return {
    name,
    label: extra.label ?? node.title ?? name,
    order: extra.order ?? Number.MAX_SAFE_INTEGER,
    kind: extra.kind ?? "live",
    section: extra.section ?? "",
    widget: extra.widget ?? "number",
    unit: extra.unit ?? "",
    description: node.description ?? "",
    nullable: node.nullable,
    choices: choices(node),
    text: node.type === "string",
    item: extra.item ?? "Entry",
    labels: extra.labels ?? {},
    columns: columns(node, extra.labels ?? {}, root),
    most: node.maxItems ?? Infinity,
    integer,
    step,
    min: node.minimum ?? (node.exclusiveMinimum === undefined ? null : node.exclusiveMinimum + inset),
    max: node.maximum ?? (node.exclusiveMaximum === undefined ? null : node.exclusiveMaximum - inset),
    default: node.default,
  };
}

/** The visible controls in the server's order. */
function controlsOf(schema) {
  return Object.entries(schema.properties ?? {})
    .map(([name, property]) => control(name, property, schema))
    .filter(({ widget }) => widget !== "hidden")
    .sort((a, b) => a.order - b.order || a.name.localeCompare(b.name));
}

/** The controls by section, in the server's order: {title, folded, specs}. */
export function sectionsOf(schema) {
  const folded = new Set(schema.ltx?.folded ?? []);
  const sections = [];
  for (const spec of controlsOf(schema)) {
    if (sections.at(-1)?.title !== spec.section) {
      sections.push({ title: spec.section, folded: folded.has(spec.section), specs: [] });
    }
    sections.at(-1).specs.push(spec);
  }
  return sections;
}
