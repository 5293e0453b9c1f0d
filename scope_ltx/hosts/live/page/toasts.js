// Short messages in a corner: what went wrong, in the server's words, or what it decided for you.

const SHOWN_MS = { info: 7000, error: 12000 };
const MOST = 4;

export class Toasts {
  #root;

  constructor(root) {
    this.#root = root;
  }

  /** kind: "info" or "error". The same sentence twice stays one message and only starts its time again. */
  show(sentence, kind = "info") {
    const old = [...this.#root.children].find((child) => child.dataset.sentence === sentence);
    old?.remove();
    while (this.#root.children.length >= MOST) this.#root.firstElementChild.remove();

    const toast = document.createElement("div");
    toast.className = `toast ${kind}`;
    toast.dataset.sentence = sentence;
    toast.setAttribute("role", kind === "error" ? "alert" : "status");
    const text = document.createElement("p");
    const close = document.createElement("button");
    close.type = "button";
    close.className = "icon";
    close.textContent = "×";
    close.setAttribute("aria-label", "Dismiss");
    close.addEventListener("click", () => toast.remove());
    toast.append(text, close);
    this.#root.append(toast);
    // A live region is read out when its text changes, so the text comes after the element.
    text.textContent = sentence;

    let timer = null;
    const start = () => { timer = setTimeout(() => toast.remove(), SHOWN_MS[kind]); };
    for (const hold of ["pointerenter", "focusin"]) toast.addEventListener(hold, () => clearTimeout(timer));
    for (const release of ["pointerleave", "focusout"]) toast.addEventListener(release, start);
    start();
  }

  error(error) {
    this.show(error.message, "error");
  }
}
