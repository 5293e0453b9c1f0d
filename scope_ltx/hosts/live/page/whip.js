// A WHIP sender: a camera's picture, and sound if wanted, to the server. One for each time that something is sent.

import { connected, ended, offer, release } from "./rtc.js";

export class WhipSender {
  #pc = null;
  #resource = null;

  constructor(path) {
    this.path = path;
  }

  /** Once. Resolves when `stream` arrives at the server. `onEnd` is called once when it no longer does by itself.
   *  Rejects with an ApiError; after `stop` with any error. */
  async start(stream, onEnd) {
    const pc = new RTCPeerConnection();
    this.#pc = pc;
    try {
      for (const track of stream.getTracks()) pc.addTransceiver(track, { direction: "sendonly", streams: [stream] });
      await pc.setLocalDescription(await pc.createOffer());
      const { resource, answer } = await offer(pc, this.path);
      this.#resource = resource;
      await pc.setRemoteDescription(answer);
      await connected(pc);
    } catch (error) {
      // Again after a stop while the offer was on its way: only now is known what the server keeps for it.
      this.stop();
      throw error;
    }
    ended(pc).then(() => { if (this.#pc === pc) { this.stop(); onEnd(); } });
  }

  stop() {
    const [pc, resource] = [this.#pc, this.#resource];
    this.#pc = this.#resource = null;
    pc?.close();
    release(resource);
  }
}
