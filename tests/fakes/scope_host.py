"""The Daydream Scope host around one pipeline, written from its contract, on any clock.

    worker     one update per turn, then prepare, then a call; 10 ms of rest after an empty result
    tracks     video paced by its timestamps, sound by the clock alone, both behind the start barrier
    strict     whatever the contract forbids raises ContractBroken

Each part says what it does at a moment, and when it wants to be asked again: `tests.fakes.scope_time` drives them.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.fakes.scope_api import MediaTimestamp, Requirements

TURN_S = 0.01
QUEUE_FRAMES, QUEUE_UPDATES, QUEUE_PACKETS = 30, 8, 10
SOUND_FRAME, SAMPLE_RATE = 960, 48_000
ONE_SHOT = ("vace_ref_images", "images", "first_frame_image", "last_frame_image")
OUTPUT_KEYS = {"video", "video_timestamps", "audio", "audio_sample_rate", "frame_rate"}
Pixels = npt.NDArray[np.uint8]


class ContractBroken(AssertionError):
    """The pipeline did what the host cannot bear."""


def require(condition: object, problem: str) -> None:
    if not condition:
        raise ContractBroken(problem)


@dataclass
class Wire:
    """What a viewer got. shown: (moment, media seconds of the stamp, picture); heard: (moment, 960 samples or None
    for silence)."""

    shown: list[tuple[float, float, Pixels]] = field(default_factory=list)
    heard: list[tuple[float, npt.NDArray[np.float32] | None]] = field(default_factory=list)


class Ports:
    """Between the worker and the tracks."""

    def __init__(self) -> None:
        self.frames: queue.Queue[tuple[torch.Tensor, float]] = queue.Queue(QUEUE_FRAMES)
        self.packets: queue.Queue[torch.Tensor] = queue.Queue(QUEUE_PACKETS)
        self.paused = False
        self.video_waits = self.sound_waits = False
        """The start barrier: both must have something."""


class FakeWorker:
    """The host's worker thread: `turn` once, and then again after the seconds it returns."""

    def __init__(self, pipeline: Any, parameters: dict[str, Any], ports: Ports) -> None:
        self.pipeline: Any = pipeline
        self.ports = ports
        self.updates: queue.Queue[dict[str, Any]] = queue.Queue(QUEUE_UPDATES)
        self.input: queue.Queue[tuple[torch.Tensor, MediaTimestamp]] = queue.Queue(QUEUE_FRAMES)
        self.parameters = dict(parameters)
        self.prepared = False
        self.paused = False
        self._stamp = -1.0
        self._had_audio = False
        # At graph build, on the event loop's thread, with nothing but this.
        wanted = pipeline.prepare(video=True)
        require(isinstance(wanted, Requirements) and wanted.input_size <= 8, f"asks for {wanted} at graph build")

    def update(self, **parameters: Any) -> bool:
        """False when it was dropped."""
        try:
            self.updates.put_nowait(parameters)
        except queue.Full:
            return False
        return True

    def turn(self) -> float:
        if not self.updates.empty():
            self.parameters |= self.updates.get_nowait()
        self.paused = self.ports.paused = self.parameters.pop("paused", self.paused)
        if self.paused:
            return TURN_S
        reset = self.parameters.pop("reset_cache", False)
        scales = self.parameters.pop("lora_scales", None)
        if reset:
            self._drop_pictures()
            self.prepared = False
        video = self._input()
        if video is None:
            if scales is not None:
                self.parameters["lora_scales"] = scales
            return TURN_S
        arguments = {**self.parameters, "init_cache": not self.prepared, **video}
        if scales is not None:
            arguments["lora_scales"] = scales
        for name in ONE_SHOT:
            self.parameters.pop(name, None)
        try:
            output = self.pipeline(**arguments)
        except Exception as error:
            raise ContractBroken(f"an exception came out of a call: {error!r}") from error
        if not output:
            return TURN_S
        self.parameters.pop("transition", None)
        self.prepared = True
        self._accept(output)
        return 0.0

    def _input(self) -> dict[str, Any] | None:
        """None while frames are missing."""
        mode = {"video": True} if self.parameters.get("input_mode") == "video" else {}
        wanted = self.pipeline.prepare(**self.parameters, **mode)
        if wanted is None:
            return {}
        require(mode, "asks for input without the video mode")
        held, size = self.input.qsize(), wanted.input_size
        require(size <= QUEUE_FRAMES, f"waits for {size} frames, the queue holds {QUEUE_FRAMES}: for ever")
        if held < size:
            return None
        picked = [round(index * held / size) for index in range(size)]
        frames = [self.input.get_nowait() for _ in range(picked[-1] + 1)]
        chosen = [frames[index] for index in picked]
        return {"video": [frame for frame, _ in chosen], "video_timestamps": [stamp for _, stamp in chosen]}

    def _drop_pictures(self) -> None:
        while not self.ports.frames.empty():
            self.ports.frames.get_nowait()

    def _accept(self, output: dict[str, Any]) -> None:
        require(not output.keys() - OUTPUT_KEYS, f"unknown keys {output.keys() - OUTPUT_KEYS}")
        self._had_audio = self._had_audio or "audio" in output
        require(self._had_audio, "the first output has no sound: the first picture would wait for it for ever")
        if "audio" in output:
            self._accept_audio(output["audio"], output.get("audio_sample_rate"))
        video, stamps = output["video"], output["video_timestamps"]
        require(isinstance(video, torch.Tensor) and video.dtype == torch.uint8, "video is no uint8 tensor")
        require(video.device.type == "cpu" and video.is_contiguous(), "video is not one block of CPU memory")
        require(video.ndim == 4 and video.shape[3] == 3 and 0 < video.shape[0] <= 8, f"video {tuple(video.shape)}")
        require(isinstance(stamps, list) and len(stamps) == len(video), "one timestamp per frame")
        require(output["frame_rate"] > 0, "frame_rate")
        for frame, stamp in zip(video, stamps, strict=True):
            require(isinstance(stamp, MediaTimestamp) and type(stamp.pts) is int, f"timestamp {stamp!r}")
            require(type(stamp.time_base) is Fraction, f"time base {stamp.time_base!r}")
            seconds = float(stamp.pts * stamp.time_base)
            require(seconds > self._stamp, f"time went from {self._stamp} to {seconds}")
            self._stamp = seconds
            require(not self.ports.frames.full(), "more than 30 frames wait: the newest would be dropped")
            self.ports.frames.put_nowait((frame, seconds))

    def _accept_audio(self, audio: Any, rate: object) -> None:
        require(rate == SAMPLE_RATE, f"sample rate {rate}")
        require(isinstance(audio, torch.Tensor) and audio.dtype == torch.float32, "sound is no float32 tensor")
        require(audio.device.type == "cpu" and audio.ndim == 2 and audio.shape[0] == 2, "sound is not stereo, CPU")
        require(bool(torch.isfinite(audio).all()) and float(audio.abs().max()) <= 1, "samples beyond -1 to 1")
        require(not self.ports.packets.full(), "more than 10 packets of sound wait: this one would be dropped")
        self.ports.packets.put_nowait(audio)


class VideoTrack:
    """Sends each picture when its timestamp is due, counted from the first."""

    def __init__(self, ports: Ports, wire: Wire) -> None:
        self._ports = ports
        self._wire = wire
        self._anchor: tuple[float, float] | None = None
        self._step: float | None = None
        self._before = 0.0
        self._next: tuple[torch.Tensor, float] | None = None

    def turn(self, now_s: float) -> float:
        """Seconds until the next one."""
        if self._next is None:
            if self._ports.frames.empty():
                return TURN_S
            self._next = self._ports.frames.get_nowait()
            self._ports.video_waits = True
            if not self._started():
                return TURN_S
            wait_s = self._wait(self._next[1], now_s)
            if wait_s > 0:
                return wait_s
        elif self._anchor is None:
            if not self._started():
                return TURN_S
            self._wait(self._next[1], now_s)
        frame, stamp = self._next
        self._next = None
        self._wire.shown.append((now_s, stamp, frame.numpy()))
        return 0.0

    def _started(self) -> bool:
        return self._ports.video_waits and self._ports.sound_waits

    def _wait(self, stamp: float, now_s: float) -> float:
        delta, self._before = stamp - self._before, stamp
        if self._anchor is None or (self._step is not None and delta >= max(0.25, 8 * self._step)):
            self._anchor, self._step = (now_s, stamp), None
            return 0.0
        self._step = delta if self._step is None else 0.8 * self._step + 0.2 * delta
        late_s = (now_s - self._anchor[0]) - (stamp - self._anchor[1])
        if late_s >= 0.5:
            self._anchor = (now_s, stamp)
        return 0.0 if abs(late_s) <= 0.01 else max(0.0, -late_s)


class SoundTrack:
    """20 ms frames on the wall clock from the first sound on, silence where there is none."""

    def __init__(self, ports: Ports, wire: Wire) -> None:
        self._ports = ports
        self._wire = wire
        self._held: deque[npt.NDArray[np.float32]] = deque()
        self._start_s: float | None = None
        self._sent = 0

    def turn(self, now_s: float) -> float:
        if self._start_s is None:
            self._drain()
            if self._ports.paused or sum(part.shape[1] for part in self._held) < SOUND_FRAME:
                return TURN_S
            self._ports.sound_waits = True
            if not self._ports.video_waits:
                return TURN_S
            self._start_s = now_s
        self._wire.heard.append((now_s, self._take()))
        self._sent += 1
        return max(0.0, self._start_s + self._sent * SOUND_FRAME / SAMPLE_RATE - now_s)

    def _drain(self) -> None:
        while not self._ports.packets.empty():
            self._held.append(self._ports.packets.get_nowait().numpy())

    def _take(self) -> npt.NDArray[np.float32] | None:
        if self._ports.paused:
            return None
        self._drain()
        joined = np.concatenate([np.zeros((2, 0), np.float32), *self._held], axis=1)
        self._held.clear()
        if joined.shape[1] < SOUND_FRAME:
            self._held.append(joined)
            return None
        self._held.append(joined[:, SOUND_FRAME:])
        return joined[:, :SOUND_FRAME]


class FakeScopeHost:
    """Loads and unloads as the host does: on a thread of its own, with unchecked parameters."""

    def __init__(self, pipeline_class: type[Any]) -> None:
        self._class = pipeline_class
        self.pipeline: Any = None

    def load(self, **load_params: Any) -> Any:
        """The old instance goes first. Raises what the pipeline's constructor raises."""
        self.unload()
        fields = self._class.get_config_class().model_fields
        defaults = {name: info.get_default() for name, info in fields.items() if info.get_default() is not None}
        outcome: list[Any] = []

        def construct() -> None:
            try:
                outcome.append(self._class(**{**defaults, **load_params}))
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=construct)
        thread.start()
        thread.join()
        made = outcome.pop()
        if isinstance(made, Exception):
            raise made
        self.pipeline = made
        require(not hasattr(made, "state"), "an attribute `state` must answer _transition_active")
        return made

    def unload(self, collect: Callable[[], object] = lambda: None) -> None:
        """Drops the reference. `collect` is the host's run of the garbage collector."""
        self.pipeline = None
        collect()
