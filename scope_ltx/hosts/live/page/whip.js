// A WHIP sender: a camera's picture, and sound if wanted, to the server.

import { request } from "./api.js";
import { connected, ended, gathered } from "./rtc.js";
import { token } from "./token.js";

export class WhipSender {
  #pc = null;
  #resource = null;

  constructor(path) {
    this.path = path;
  }

  /** Resolves when `stream` arrives at the server. `onEnd` is called once when it no longer does by itself.
   *  Rejects with an ApiError. */
  async start(stream, onEnd) {
    const pc = new RTCPeerConnection();
    this.#pc = pc;
    try {
      for (const track of stream.getTracks()) pc.addTransceiver(track, { direction: "sendonly", streams: [stream] });
      await pc.setLocalDescription(await pc.createOffer());
      await gathered(pc);
      const response = await request(this.path, {
        method: "POST", body: pc.localDescription.sdp, headers: { "Content-Type": "application/sdp" },
      });
      const location = response.headers.get("Location");
      this.#resource = location && new URL(location, response.url).href;
      await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
      await connected(pc);
    } catch (error) {
      this.stop();
      throw error;
    }
    ended(pc).then(() => { if (this.#pc === pc) { this.stop(); onEnd(); } });
  }

  stop() {
    const [pc, resource] = [this.#pc, this.#resource];
    this.#pc = this.#resource = null;
    pc?.close();
    // The server would notice by itself, only later.
    if (resource) fetch(resource, { method: "DELETE", headers: token.headers, keepalive: true }).catch(() => {});
  }
}
