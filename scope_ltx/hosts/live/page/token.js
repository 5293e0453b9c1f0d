// The token of a host that asks for one: from the address (#token=...), else from whoever sits here. It stays in this
// tab and travels in a header, never in an address that a server would log.

const KEY = "scope-ltx-token";
const LONG_ENOUGH = 16;

class Token {
  #asking = null;

  constructor() {
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given === null) return;
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }

  /** null when there is none. */
  get value() {
    return sessionStorage.getItem(KEY);
  }

  get headers() {
    return this.value ? { Authorization: `Bearer ${this.value}` } : {};
  }

  /** Asks once, however many requests were refused. Resolves when there is another one to try. */
  ask() {
    this.#asking ??= this.#ask().finally(() => { this.#asking = null; });
    return this.#asking;
  }

  #ask() {
    const dialog = document.getElementById("ask-token");
    const input = dialog.querySelector("input");
    const wrong = this.value !== null;
    dialog.querySelector(".problem").textContent = wrong ? "This token was not accepted." : "";
    input.value = "";
    dialog.showModal();
    return new Promise((resolve) => {
      const done = () => {
        if (input.value.trim().length < LONG_ENOUGH) { dialog.showModal(); return; }
        dialog.removeEventListener("close", done);
        sessionStorage.setItem(KEY, input.value.trim());
        resolve();
      };
      dialog.addEventListener("close", done);
    });
  }
}

export const token = new Token();
