// The server's HTTP endpoints. Relative to the page, so that it also works behind a path prefix.

import { token } from "./token.js";

const TIMEOUT_MS = 8000;

/** An answer that is no success. `message` is the server's own sentence; `fields` maps a field to its sentence. */
export class ApiError extends Error {
  constructor(message, { status = 0, fields = [], retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.fields = fields;
    this.retryAfter = retryAfter;
  }
}

export function apiUrl(path) {
  return new URL(path, document.baseURI).href;
}

/** Seconds of a Retry-After header, which is a number or a date; null when absent or unreadable. */
function retryAfter(response) {
  const header = response.headers.get("Retry-After");
  if (header === null) return null;
  const seconds = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/** Reads problem+json (`title`, `detail`) and the list form of 422 (`detail: [{loc, msg}]`). */
async function errorOf(response) {
  return errorIn(await response.text(), { status: response.status, retryAfter: retryAfter(response) });
}

/** The error that a body of an answer tells. */
export function errorIn(text, options) {
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy in between answers with HTML: its status says more to a person than its markup.
    return new ApiError(`The server answered ${options.status}.`, options);
  }
  if (Array.isArray(body?.detail)) {
    options.fields = body.detail.map(({ loc, msg }) => ({ loc: loc ?? [], message: msg }));
    return new ApiError(body.detail.map(({ msg }) => msg).join(" "), options);
  }
  const sentence = body?.detail || body?.title || `The server answered ${options.status}`;
  return new ApiError(String(sentence), options);
}

/** `fetch` that fails with an ApiError in every case: no connection, no answer in time, no success. Where the server
 *  wants a token, it asks for one and tries again. */
export async function request(path, options = {}) {
  for (;;) {
    const used = token.value;
    const response = await attempt(path, options);
    if (response.status !== 401) {
      if (!response.ok) throw await errorOf(response);
      return response;
    }
    // Another request's refusal may have been answered meanwhile.
    if (token.value === used) await token.ask();
  }
}

async function attempt(path, { method = "GET", body, headers = {}, ...rest }) {
  try {
    return await fetch(apiUrl(path), {
      method, body, headers: { ...headers, ...token.headers }, cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS), ...rest,
    });
  } catch (error) {
    const why = error.name === "TimeoutError" ? "did not answer in time" : "cannot be reached";
    throw new ApiError(`The server ${why}.`);
  }
}

async function json(path, method = "GET", body = undefined) {
  const init = body === undefined
    ? { method }
    : { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await request(path, init)).json();
}

export const api = {
  schema: () => json("api/schema"),
  parameters: () => json("api/parameters"),
  patchParameters: (changes) => json("api/parameters", "PATCH", changes),
  prompt: () => json("api/prompt"),
  sendPrompt: (prompt) => json("api/prompt", "POST", { prompt }),
  /** `prompts`: [{text, weight}]. It takes over during `chunks` chunks, at once for 0. */
  sendBlend: (prompts, chunks) => json("api/prompt", "POST", { prompts, transition_chunks: chunks }),
  loras: () => json("api/loras"),
  status: () => json("api/status"),
  startRecording: () => json("api/recording", "POST"),
  /** Answers when the file is complete. */
  stopRecording: () => json("api/recording", "DELETE"),
  recordings: () => json("api/recordings"),
  recording: async (name) => (await request(`api/recordings/${name}`, { signal: null })).blob(),
};
