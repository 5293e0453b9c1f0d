// The status line and the badge: how the stream is doing, in the units a person thinks in.

const BADGES = {
  connecting: "Connecting", loading: "Loading the model", live: "Live", slow: "Slower than real time",
  waiting: "Reconnecting", error: "Stopped",
};

/** One {key, label, value, tone} per figure; figures that are not known yet are left out. */
function figures(status, received) {
  if (!status) return [];
  const list = [];
  const add = (key, label, value, tone = "") => list.push({ key, label, value, tone });
  const known = (value) => value !== null && value !== undefined;
  if (known(status.chunk)) add("chunk", "Chunk", String(status.chunk));
  if (status.real_time_factor) {
    const tone = status.real_time_factor < 1 ? "warn" : "";
    add("factor", "Speed", `${status.real_time_factor.toFixed(2)}× real time`, tone);
  }
  if (known(status.buffer_s)) add("buffer", "Buffer", `${status.buffer_s.toFixed(1)} s`, status.buffer_s < 0.2 ? "warn" : "");
  if (status.stalls) add("stalls", "Stalls", `${status.stalls} (${(status.stall_s ?? 0).toFixed(1)} s)`, "warn");
  if (received?.width) add("size", "Picture", `${received.width} × ${received.height}`);
  if (received?.fps) add("fps", "Rate", `${Math.round(received.fps)} fps`);
  const codec = received?.codec || status.video_codec;
  if (codec) {
    const rate = status.bitrate ? ` ${(status.bitrate / 1e6).toFixed(1)} Mb/s` : "";
    add("codec", "Codec", `${codec}${rate}`);
  }
  if (status.viewers) add("viewers", "Viewers", String(status.viewers));
  return list;
}

export class StatusLine {
  constructor({ line, badge, model, notes }) {
    this.line = line;
    this.badge = badge;
    this.model = model;
    this.notes = notes;
  }

  badgeState(state) {
    if (this.badge.dataset.state === state) return; // the badge is a live region: do not read it out twice
    this.badge.dataset.state = state;
    this.badge.querySelector("span").textContent = BADGES[state];
  }

  show(status, received) {
    const list = figures(status, received);
    const present = new Set(list.map(({ key }) => key));
    for (const child of [...this.line.children]) if (!present.has(child.dataset.key)) child.remove();
    for (const { key, label, value, tone } of list) {
      let item = this.line.querySelector(`[data-key="${key}"]`);
      if (!item) {
        item = document.createElement("div");
        item.dataset.key = key;
        const term = document.createElement("dt");
        term.textContent = label;
        item.append(term, document.createElement("dd"));
      }
      item.dataset.tone = tone;
      const figure = item.lastElementChild;
      if (figure.textContent !== value) figure.textContent = value;
      this.line.append(item);
    }
    this.model.textContent = status?.model ? `Model ${status.model}` : "";
    this.#showNotes(status);
  }

  #showNotes(status) {
    const sentences = [...new Set(status?.notes ?? [])];
    // A live region: redrawing equal notes every second would read them out every second.
    if (this.notes.dataset.shown === JSON.stringify(sentences)) return;
    this.notes.dataset.shown = JSON.stringify(sentences);
    this.notes.replaceChildren(...sentences.map((sentence) => {
      const item = document.createElement("li");
      item.textContent = sentence;
      return item;
    }));
  }
}
