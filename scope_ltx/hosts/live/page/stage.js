// The picture, its sound, and the veil that says why there is none yet.

const GLOW_MS = 250; // four tiny copies a second: the light around the picture moves calmly and costs nothing
const STALL_MS = 1500;

export class Stage {
  #started = false;
  #lastFrame = { count: 0, at: performance.now() };

  /** heard: with sound from the start, where the browser allows that without a click. */
  constructor(root, { heard }) {
    this.root = root;
    this.video = root.querySelector("#video");
    this.video.muted = !heard;
    this.veil = root.querySelector("#veil");
    this.title = root.querySelector("#veil-title");
    this.text = root.querySelector("#veil-text");
    this.retry = root.querySelector("#retry");
    this.hint = root.querySelector("#hint");
    this.deck = root.querySelector("#deck");
    this.sound = root.querySelector("#sound");
    this.volume = root.querySelector("#volume");
    this.#wireSound();
    this.#wireFullscreen();
    this.#wireGlow();
    this.video.addEventListener("playing", () => { this.#started = true; });
    this.video.addEventListener("resize", () => this.#shape());
  }

  play(stream) {
    if (this.video.srcObject === stream) return;
    this.video.srcObject = stream;
    this.video.play().catch((error) => {
      // AbortError only means that a newer stream took over. A refusal needs a click, so offer the button.
      if (error.name !== "NotAllowedError") return;
      this.deck.hidden = false;
      this.video.muted = true;
      this.video.play().catch(() => {});
    });
  }

  /** kind: "busy" shows the moving line, "wait" a retry button, "error" the red tone. */
  cover(kind, title, text = "") {
    this.veil.hidden = false;
    this.veil.dataset.kind = kind;
    if (this.title.textContent !== title) this.title.textContent = title;
    // A countdown read aloud every second would talk over the stream; a reason is read once.
    this.text.setAttribute("aria-live", kind === "error" ? "polite" : "off");
    if (this.text.textContent !== text) this.text.textContent = text;
    this.retry.hidden = kind !== "wait";
    this.hint.textContent = "";
    this.deck.hidden = !this.#started;
  }

  uncover() {
    this.veil.hidden = true;
    this.deck.hidden = false;
  }

  /** Whether frames still arrive; says so over the picture when they do not, without hiding the last one. */
  watch() {
    const count = this.video.getVideoPlaybackQuality().totalVideoFrames;
    const now = performance.now();
    if (count !== this.#lastFrame.count) this.#lastFrame = { count, at: now };
    const flowing = count > 0 && now - this.#lastFrame.at < STALL_MS;
    this.hint.textContent = flowing || !this.veil.hidden ? "" : "Waiting for the next chunk";
    return flowing;
  }

  #shape() {
    const { videoWidth, videoHeight } = this.video;
    if (videoWidth && videoHeight) this.root.style.setProperty("--ratio", String(videoWidth / videoHeight));
  }

  #wireSound() {
    const show = () => {
      const on = !this.video.muted;
      this.sound.setAttribute("aria-pressed", String(on));
      this.sound.classList.toggle("on", on);
      this.sound.querySelector("span").textContent = on ? "Mute" : "Sound on";
      this.volume.hidden = !on;
      this.volume.value = String(this.video.volume);
      this.volume.style.setProperty("--part", `${100 * this.video.volume}%`);
    };
    this.sound.addEventListener("click", () => {
      this.video.muted = !this.video.muted;
      // The click is the permission that browsers ask for before a page may be heard.
      this.video.play().catch((error) => { this.hint.textContent = error.message; });
    });
    this.volume.addEventListener("input", () => { this.video.volume = Number(this.volume.value); });
    this.video.addEventListener("volumechange", show);
    show();
  }

  #wireFullscreen() {
    const button = this.root.querySelector("#fullscreen");
    if (!document.fullscreenEnabled) { button.hidden = true; return; }
    button.addEventListener("click", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else this.root.requestFullscreen();
    });
    document.addEventListener("fullscreenchange", () => {
      const label = document.fullscreenElement ? "Leave full screen" : "Full screen";
      button.setAttribute("aria-label", label);
      button.title = label;
    });
  }

  #wireGlow() {
    const canvas = this.root.querySelector("#glow");
    const context = canvas.getContext("2d", { alpha: false });
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    setInterval(() => {
      if (calm.matches || document.hidden || !this.video.videoWidth) return;
      context.drawImage(this.video, 0, 0, canvas.width, canvas.height);
    }, GLOW_MS);
  }
}
