// A WHEP viewer: one offer, one answer, sound and picture in, and again after every loss.

import { ApiError } from "./api.js";
import { connected, ended, offer, release } from "./rtc.js";

const BACKOFF_S = [0.5, 1, 2, 4, 8];
const JITTER_BUFFER_MS = 150; // the stream is seconds behind its prompt anyway: trade delay for steadiness

/** Chromium decodes Opus as mono unless the receiver's own offer says stereo. */
function askForStereo(sdp) {
  const opus = /^a=rtpmap:(\d+) opus\/48000\/2\r?$/m.exec(sdp);
  if (!opus) return sdp;
  const line = new RegExp(`^a=fmtp:${opus[1]} (?!.*stereo=1)([^\\r\\n]*)`, "m");
  return sdp.replace(line, `a=fmtp:${opus[1]} $1;stereo=1`);
}

/**
 * `onStream(stream)` whenever there is a new one, `onState({state, error, retryAt})` with state
 * connecting | live | waiting. `retryAt` is in `performance.now()` milliseconds.
 */
export class WhepViewer {
  #wake = () => {};
  #stopped = false;
  #resource = null;

  constructor(path, { onStream, onState }) {
    this.path = path;
    this.onStream = onStream;
    this.onState = onState;
    this.pc = null;
  }

  async run() {
    let attempt = 0;
    while (!this.#stopped) {
      let error = null;
      try {
        this.onState({ state: "connecting" });
        await this.#session(() => { attempt = 0; });
        error = new ApiError("The connection was lost.");
      } catch (caught) {
        if (!(caught instanceof Error)) throw caught;
        error = caught;
      } finally {
        this.#leave();
      }
      if (this.#stopped) return;
      // The spread keeps a room of viewers from coming back in the same instant after a restart.
      const backoff = BACKOFF_S[Math.min(attempt, BACKOFF_S.length - 1)] * (0.8 + 0.4 * Math.random());
      const seconds = error.retryAfter ?? backoff;
      attempt += 1;
      this.onState({ state: "waiting", error, retryAt: performance.now() + seconds * 1000 });
      await this.#pause(seconds);
    }
  }

  /** Ends a wait between two attempts at once. */
  retryNow() {
    this.#wake();
  }

  /** Leaves for good, telling the server even while the page goes away. */
  stop() {
    this.#stopped = true;
    this.#wake();
    this.#leave();
  }

  async #session(onConnected) {
    const pc = new RTCPeerConnection();
    this.pc = pc;
    for (const kind of ["video", "audio"]) {
      const { receiver } = pc.addTransceiver(kind, { direction: "recvonly" });
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = JITTER_BUFFER_MS;
    }
    const loose = new MediaStream();
    pc.addEventListener("track", ({ track, streams }) => {
      // The server's own stream ties sound to picture: the browser keeps lips in sync only within one.
      if (!streams.length) loose.addTrack(track);
      this.onStream(streams[0] ?? loose);
    });

    await pc.setLocalDescription({ type: "offer", sdp: askForStereo((await pc.createOffer()).sdp) });
    const { resource, answer } = await offer(pc, this.path);
    this.#resource = resource;
    await pc.setRemoteDescription(answer);
    await connected(pc);
    onConnected();
    this.onState({ state: "live" });
    await ended(pc);
  }

  #leave() {
    this.pc?.close();
    this.pc = null;
    release(this.#resource);
    this.#resource = null;
  }

  #pause(seconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * 1000);
      this.#wake = () => { clearTimeout(timer); resolve(); };
    });
  }
}

/** What this viewer really gets: {codec, fps, width, height, bytes, atMs}, or null before the first frame. */
export async function receivedVideo(pc) {
  const report = await pc.getStats();
  for (const entry of report.values()) {
    if (entry.type !== "inbound-rtp" || entry.kind !== "video" || !entry.framesDecoded) continue;
    const codec = report.get(entry.codecId)?.mimeType?.split("/")[1] ?? "";
    return {
      codec: codec.replace("H264", "H.264"), fps: entry.framesPerSecond ?? null,
      width: entry.frameWidth, height: entry.frameHeight, bytes: entry.bytesReceived, atMs: entry.timestamp,
    };
  }
  return null;
}
