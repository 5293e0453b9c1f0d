// Puts the page together: one viewer, one panel, one prompt box, one status poll.

import { ApiError, api } from "./api.js";
import { ControlPanel } from "./controls.js";
import { Graphs } from "./graphs.js";
import { Recording, snapshot } from "./keep.js";
import { LoraCatalog } from "./loras.js";
import { ParameterSync } from "./parameters.js";
import { PromptBox } from "./prompt.js";
import { PromptQueue } from "./queue.js";
import { SeedLock } from "./seed.js";
import { Sources } from "./sources.js";
import { Stage } from "./stage.js";
import { StatusLine } from "./status.js";
import { Toasts } from "./toasts.js";
import { WhepViewer, receivedVideo } from "./whep.js";

const POLL_MS = 1000;
const POLLS_PER_REFRESH = 5;

const find = (id) => document.getElementById(id);
const toasts = new Toasts(find("toasts"));
const stage = new Stage(find("stage"), { heard: document.documentElement.dataset.view === "picture" });
const line = new StatusLine({ line: find("status"), badge: find("badge"), model: find("model"), notes: find("notes") });
const prompt = new PromptBox(find("composer"), { ...api, toasts });
const panel = new ControlPanel(find("controls"), (name, value) => sync.change(name, value));
const sources = new Sources(find("sources"), (changes) => sync.changeAll(changes));
const seed = new SeedLock({ lock: find("seed-lock"), roll: find("seed-roll") }, (changes) => sync.changeAll(changes));
const sync = new ParameterSync({
  panel, toasts, onParameters: (parameters) => { sources.show(parameters); seed.show(parameters); },
});
const queue = new PromptQueue(find("queue"), { box: find("prompt"), send: (text) => prompt.sendNext(text), toasts });
const recording = new Recording({ button: find("record"), list: find("recorded"), folder: find("recordings") }, { api, toasts });
const graphs = new Graphs(find("graphs"));

let connection = { state: "connecting" };
let status = null;
let unreachable = false;
let lastError = null;

const viewer = new WhepViewer("whep", {
  onStream: (stream) => stage.play(stream),
  onState: (state) => { connection = state; show(); },
});

function secondsUntil(at) {
  return Math.max(0, Math.ceil((at - performance.now()) / 1000));
}

/** What keeps the picture away, in order of weight; null when nothing does. */
function obstacle() {
  if (unreachable && connection.state !== "live") {
    return { badge: "waiting", kind: "wait", title: "The server cannot be reached", text: retryText() };
  }
  if (status?.state === "error") {
    return { badge: "error", kind: "error", title: "The stream has stopped", text: status.last_error ?? "" };
  }
  if (status?.state === "loading" || connection.error?.status === 409) {
    const text = status?.uptime_s ? `${Math.round(status.uptime_s)} s so far. The picture starts by itself.` : "The picture starts by itself.";
    return { badge: "loading", kind: "busy", title: "Loading the model", text };
  }
  if (connection.state === "waiting") {
    return { badge: "waiting", kind: "wait", title: connection.error.message, text: retryText() };
  }
  if (connection.state === "connecting") return { badge: "connecting", kind: "busy", title: "Connecting", text: "" };
  return null;
}

function retryText() {
  if (connection.state !== "waiting") return "";
  const seconds = secondsUntil(connection.retryAt);
  return seconds ? `Trying again in ${seconds} s.` : "Trying again.";
}

function show() {
  const flowing = stage.watch();
  const problem = obstacle();
  if (problem) {
    line.badgeState(problem.badge);
    stage.cover(problem.kind, problem.title, problem.text);
  } else if (!flowing && !stage.video.videoWidth) {
    line.badgeState("connecting");
    stage.cover("busy", "Waiting for the first chunk");
  } else {
    line.badgeState(status?.real_time_factor && status.real_time_factor < 1 ? "slow" : "live");
    stage.uncover();
  }
}

async function poll() {
  const before = status?.state;
  try {
    status = await api.status();
    unreachable = false;
  } catch (error) {
    // Only "no answer" means that the server is away; an answer that is an error is worth its sentence.
    unreachable = error.status === 0;
    if (!unreachable) toasts.error(error);
  }
  // The model is there: no need to sit out the rest of the wait that a 409 asked for.
  if (before === "loading" && status?.state === "live") viewer.retryNow();
  const problem = status?.last_error ?? null;
  // A stopped stream says its reason over the whole picture: once is enough.
  if (problem && problem !== lastError && status.state !== "error") toasts.show(problem, "error");
  lastError = problem;
  const answer = unreachable ? null : status;
  const playing = answer?.state === "live" ? answer.prompt : null;
  prompt.onAir(playing, answer?.next_prompt ?? null);
  queue.onAir(answer?.chunk ?? null, playing, answer?.next_prompt);
  recording.show(answer);
  document.body.classList.toggle("no-uploads", status !== null && !status.uploads);
  const received = viewer.pc ? await receivedVideo(viewer.pc) : null;
  line.show(answer, received);
  graphs.add(answer, received);
  show();
}

/** Schema, LoRAs, values and prompt, tried until the server gives them. */
async function loadControls() {
  for (;;) {
    try {
      const [schema, loras, current] = await Promise.all([api.schema(), api.loras(), api.prompt()]);
      panel.render(schema, new LoraCatalog(loras));
      prompt.start(current.prompt);
      await sync.refresh();
      return;
    } catch (error) {
      if (!(error instanceof ApiError)) { toasts.error(error); throw error; }
      if (error.status !== 0 && error.status !== 409) toasts.error(error);
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter ?? 2)));
    }
  }
}

async function keepPolling() {
  for (let round = 1; ; round += 1) {
    await poll();
    if (round % POLLS_PER_REFRESH === 0 && panel.names.size && !unreachable) {
      await sync.refresh().catch((error) => toasts.error(error));
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

find("retry").addEventListener("click", () => viewer.retryNow());
find("snapshot").addEventListener("click", () => snapshot(stage.video, toasts));
// Parts that have no messages of their own tell what went wrong up here.
document.addEventListener("problem", ({ detail }) => toasts.error(detail));
window.addEventListener("online", () => viewer.retryNow());
window.addEventListener("pagehide", () => { viewer.stop(); sources.webcam.stop(); });
// A page that comes back from the back-forward cache has a closed connection: start anew.
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

viewer.run();
loadControls();
keepPolling();
