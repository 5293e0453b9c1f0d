// What a viewer and a sender have in common: a connection is offered, answered, up, over, and left.

import { ApiError, request } from "./api.js";
import { token } from "./token.js";

const GATHER_LIMIT_MS = 2000; // a VPN or dead interface can hold gathering for 10 s and more
const DISCONNECTED_LIMIT_MS = 4000; // the browser itself gives up only after 15 to 30 s
const CONNECT_LIMIT_MS = 12000;

/** Sends the local description. Resolves with the server's answer and the address of what it keeps for it, which
 *  `release` takes. Rejects with an ApiError. */
export async function offer(pc, path) {
  await gathered(pc);
  const response = await request(path, {
    method: "POST", body: pc.localDescription.sdp, headers: { "Content-Type": "application/sdp" },
  });
  const location = response.headers.get("Location");
  const resource = location && new URL(location, response.url).href;
  return { resource, answer: { type: "answer", sdp: await response.text() } };
}

/** Only courtesy, while the page goes away, too: a server that hears nothing notices by itself, only later. */
export function release(resource) {
  if (resource) fetch(resource, { method: "DELETE", headers: token.headers, keepalive: true }).catch(() => {});
}

/** Waits for every candidate, so that one request carries the whole offer. */
function gathered(pc) {
  return new Promise((resolve) => {
    const done = () => { if (pc.iceGatheringState === "complete") resolve(); };
    pc.addEventListener("icegatheringstatechange", done);
    setTimeout(resolve, GATHER_LIMIT_MS);
    done();
  });
}

/** Resolves with "connected" or rejects when the connection does not come up in time. */
export function connected(pc) {
  return new Promise((resolve, reject) => {
    const fail = () => reject(new ApiError("The media connection could not be made."));
    const timer = setTimeout(fail, CONNECT_LIMIT_MS);
    const look = () => {
      if (pc.connectionState === "connected") { clearTimeout(timer); resolve(); }
      if (["failed", "closed"].includes(pc.connectionState)) { clearTimeout(timer); fail(); }
    };
    pc.addEventListener("connectionstatechange", look);
    look();
  });
}

/** Resolves when an established connection is over. */
export function ended(pc) {
  return new Promise((resolve) => {
    let timer = null;
    const look = () => {
      clearTimeout(timer);
      if (["failed", "closed"].includes(pc.connectionState)) resolve();
      if (pc.connectionState === "disconnected") timer = setTimeout(resolve, DISCONNECTED_LIMIT_MS);
    };
    pc.addEventListener("connectionstatechange", look);
    // A server that stops says so in DTLS, which ends the transport before ICE notices anything.
    for (const { transport } of [...pc.getReceivers(), ...pc.getSenders()]) {
      transport?.addEventListener("statechange", () => {
        if (["closed", "failed"].includes(transport.state)) resolve();
      });
    }
    look();
  });
}
