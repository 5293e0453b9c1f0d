// The last two minutes as small lines: is the machine fast enough, and what limits it.

import { element } from "./inputs.js";

const KEPT = 120; // one point per second
const [WIDTH, HEIGHT] = [120, 36];
const GIB = 2 ** 30;

/** `value(status, received)` is a number, or null when it is not known. `mark`: a level worth comparing with. */
const SERIES = [
  { key: "factor", label: "Speed", unit: "× real time", digits: 2, mark: 1, value: (s) => s.real_time_factor },
  { key: "buffer", label: "Buffer", unit: "s", digits: 1, value: (s) => s.buffer_s },
  { key: "bitrate", label: "Received", unit: "Mb/s", digits: 2, value: (s, rate) => rate },
  { key: "step", label: "Step", unit: "ms", digits: 0, value: (s) => (s.work ? 1000 * s.work.step_s : null) },
  { key: "copied", label: "Copied per chunk", unit: "GiB", digits: 2, value: (s) => (s.work ? s.work.copied_nbytes / GIB : null) },
  { key: "device", label: "Device memory", unit: "GiB", digits: 2, value: (s) => (s.work ? s.work.device_nbytes / GIB : null) },
];

class Graph {
  #values = [];

  constructor(spec) {
    this.spec = spec;
    this.now = element("output", {}, "–");
    const svg = (tag, attributes) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      return node;
    };
    this.mark = svg("line", { class: "mark", x1: 0, x2: WIDTH });
    this.line = svg("polyline", { points: "" });
    this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.picture.append(this.mark, this.line);
    this.node = element("div", { class: "graph", "data-key": spec.key }, element("p", {}, spec.label, this.now), this.picture);
  }

  add(value) {
    this.#values.push(Number.isFinite(value) ? value : null);
    if (this.#values.length > KEPT) this.#values.shift();
    this.#draw();
  }

  #draw() {
    const { label, unit, digits, mark } = this.spec;
    const known = this.#values.filter((value) => value !== null);
    const last = this.#values.at(-1);
    const say = (value) => `${value.toFixed(digits)} ${unit}`;
    this.now.textContent = last === null ? "–" : say(last);
    if (!known.length) { this.picture.setAttribute("aria-label", `${label}: not known`); return; }
    const top = Math.max(...known, mark ?? 0) * 1.15 || 1;
    const y = (value) => HEIGHT - 1 - (value / top) * (HEIGHT - 2);
    const points = [];
    this.#values.forEach((value, i) => {
      if (value !== null) points.push(`${WIDTH - this.#values.length + i + 1},${y(value).toFixed(1)}`);
    });
    this.line.setAttribute("points", points.join(" "));
    this.mark.setAttribute("visibility", mark === undefined ? "hidden" : "visible");
    for (const end of ["y1", "y2"]) this.mark.setAttribute(end, y(mark ?? 0));
    const range = `lowest ${say(Math.min(...known))}, highest ${say(Math.max(...known))}`;
    this.picture.setAttribute("aria-label", `${label} in the last ${known.length} seconds: ${range}`);
  }
}

export class Graphs {
  #last = null;

  constructor(root) {
    this.graphs = SERIES.map((spec) => new Graph(spec));
    root.append(...this.graphs.map(({ node }) => node));
  }

  /** Once per second; `received` is from `receivedVideo`. Nulls are gaps. */
  add(status, received) {
    const rate = this.#rate(received);
    for (const graph of this.graphs) graph.add(status ? graph.spec.value(status, rate) : null);
  }

  /** Mb/s since the call before. */
  #rate(received) {
    const before = this.#last;
    this.#last = received;
    if (!before || !received || received.bytes < before.bytes || received.atMs <= before.atMs) return null;
    return (8 * (received.bytes - before.bytes)) / (received.atMs - before.atMs) / 1000;
  }
}
