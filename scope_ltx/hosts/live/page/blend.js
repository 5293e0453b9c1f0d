// Further prompts beside the one in the box, each with a weight, and over how many chunks they take over.

import { readNumber } from "./inputs.js";
import { rows } from "./rows.js";

const ROWS = {
  item: "Prompt",
  placeholder: "another prompt",
  most: 7, // with the one in the box as many as the server takes
  columns: [
    { name: "text", label: "Text", text: true, description: "" },
    { name: "weight", label: "Weight", default: 1, min: 0.01, max: 1000, description: "Relative to the other prompts." },
  ],
};

export class Blend {
  constructor(root) {
    this.weight = root.querySelector("#blend-weight");
    this.fade = root.querySelector("#blend-chunks");
    this.state = root.querySelector("#blend-state");
    this.rows = rows(ROWS, "blend-prompts");
    root.querySelector("#blend-rows").append(...this.rows.nodes);
    for (const event of ["input", "change"]) {
      for (const node of [this.fade, ...this.rows.nodes]) node.addEventListener(event, () => this.#show());
    }
  }

  /** Over how many chunks a prompt takes over; 0 for at once, and for what is no number. */
  chunks() {
    return this.fade.checkValidity() ? Number(this.fade.value) : 0;
  }

  /** {prompts, chunks} with `prompt` first, or null when it is to stand alone at once. Throws a RangeError. */
  read(prompt) {
    const others = this.rows.read();
    const chunks = readNumber(this.fade, { nullable: true }) ?? 0;
    if (!others.length && chunks === 0) return null;
    const weight = others.length ? readNumber(this.weight, { nullable: false }) : 1;
    return { prompts: [{ text: prompt, weight }, ...others], chunks };
  }

  /** What will be sent, also while this is folded. */
  #show() {
    const others = this.rows.count();
    const chunks = Number(this.fade.value);
    const parts = [];
    if (others) parts.push(`${others + 1} prompts`);
    if (chunks > 0) parts.push(`over ${chunks} chunks`);
    this.state.textContent = parts.join(", ");
  }
}
