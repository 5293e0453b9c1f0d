// Tabs as the ARIA practices describe them: one stop for the Tab key, arrows between them, the panel follows.

const STEP = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

export class Tabs {
  constructor(root) {
    this.tabs = [...root.querySelectorAll("[role=tab]")];
    for (const tab of this.tabs) {
      tab.addEventListener("click", () => this.#select(tab));
      tab.addEventListener("keydown", (event) => this.#move(event));
    }
    this.#select(this.tabs[0]);
  }

  /** A dot for the eye and a word for the ear. */
  mark(key, used) {
    const tab = this.tabs.find(({ dataset }) => dataset.key === key);
    if ((tab.dataset.used === "true") === used) return;
    tab.dataset.used = String(used);
    tab.querySelector(".in-use").textContent = used ? "in use" : "";
  }

  #select(chosen) {
    for (const tab of this.tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
  }

  #move(event) {
    const at = this.tabs.indexOf(event.currentTarget);
    const last = this.tabs.length - 1;
    const to = { Home: 0, End: last }[event.key] ?? (event.key in STEP ? at + STEP[event.key] : null);
    if (to === null) return;
    event.preventDefault();
    const tab = this.tabs[(to + this.tabs.length) % this.tabs.length];
    this.#select(tab);
    tab.focus();
  }
}
