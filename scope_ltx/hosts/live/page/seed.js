// The seed lock: held, every chunk starts from the same noise; a new seed is one click away.

const LARGEST = 2 ** 31;

export class SeedLock {
  constructor({ lock, roll }, change) {
    this.lock = lock;
    this.roll = roll;
    lock.addEventListener("click", () => change({ randomize_seed: lock.getAttribute("aria-pressed") === "true" }));
    roll.addEventListener("click", () => change({ base_seed: Math.floor(Math.random() * LARGEST) }));
  }

  show({ randomize_seed: random, base_seed: seed }) {
    this.lock.setAttribute("aria-pressed", String(!random));
    this.lock.querySelector("span").textContent = random ? "Lock seed" : `Seed ${seed}`;
    this.roll.hidden = random;
  }
}
