"""One stage of training: how far it is, its seeds, its files, and what the command line says about it.

A stage ends after a number of steps, or after a number of seconds where a machine is lent by the minute; rates
follow the fraction that is done of whichever comes first.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scope_ltx.freed_memory import own_memory
from training.checkpoint import load_state, save_state
from training.log import Log, plot

SEED = 20260305
SAVE_EVERY_S = 60.0
LOG_EVERY = 50


@dataclass(frozen=True)
class Budget:
    """What ends a stage: at least one of the two."""

    steps: int | None = None
    seconds: float | None = None

    def fraction(self, step: int, seconds: float) -> float:
        """0 at the start, 1 or more at the end."""
        parts = [step / self.steps] if self.steps is not None else []
        parts += [seconds / self.seconds] if self.seconds is not None else []
        if not parts:
            raise ValueError("a stage needs a number of steps or of seconds to end after")
        return max(parts)


@dataclass
class Stage:
    """State of a stage that lives outside its model. device: where it computes."""

    name: str
    directory: Path
    device: torch.device
    budget: Budget
    seed: int = SEED
    clock: Callable[[], float] = time.monotonic
    until: float | None = None
    """Time of day (Unix, s) to be done by: shortens `budget` by what set-up took."""
    step: int = 0
    _before_s: float = 0.0
    _started_s: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.rng = random.Random(f"{self.seed} {self.name}")
        self.generator = torch.Generator(self.device).manual_seed(self.rng.getrandbits(62))
        self.log = Log(self.directory / f"{self.name}.jsonl")
        self._started_s = self._saved_s = self.clock()
        self._shorten()

    @property
    def seconds(self) -> float:
        """Spent on this stage, those before a resumption included."""
        return self._before_s + self.clock() - self._started_s

    @property
    def progress(self) -> float:
        return min(1.0, self.budget.fraction(self.step, self.seconds))

    @property
    def running(self) -> bool:
        return self.progress < 1.0

    @property
    def logs_now(self) -> bool:
        return self.step % LOG_EVERY == 0

    def start_clock(self) -> None:
        """Leave out what was spent so far: compiling and filling banks."""
        self._started_s = self.clock()
        self._shorten()

    def _shorten(self) -> None:
        if self.until is not None:
            left = max(1.0, self.until - time.time()) + self._before_s
            self.budget = Budget(self.budget.steps, min(left, self.budget.seconds or left))

    def record(self, figures: Mapping[str, float]) -> None:
        self.log.append({"step": self.step, "seconds": round(self.seconds, 1)} | dict(figures))

    def plot(self, columns: tuple[str, ...]) -> None:
        plot(self.log.path, self.directory / f"{self.name}.svg", columns)

    def resume(self) -> dict[str, Any] | None:
        """What `save` was given last, with step, time and random numbers restored; None where there is nothing."""
        state = load_state(self._state_path, self.device)
        if state is None:
            return None
        self.step, self._before_s = state["step"], state["seconds"]
        self.rng.setstate(state["rng"])
        self.generator.set_state(state["generator"].cpu())
        tensors: dict[str, Any] = state["tensors"]
        return tensors

    def save_now_and_then(self, tensors: Callable[[], dict[str, Any]]) -> None:
        if self.clock() - self._saved_s >= SAVE_EVERY_S:
            self.save(tensors())

    def save(self, tensors: dict[str, Any]) -> None:
        """Everything that the stage needs to go on from here."""
        state = {"step": self.step, "seconds": self.seconds, "rng": self.rng.getstate()}
        save_state(self._state_path, state | {"generator": self.generator.get_state(), "tensors": tensors})
        self._saved_s = self.clock()

    @property
    def _state_path(self) -> Path:
        return self.directory / f"{self.name}.state.pt"


def stage_arguments(description: str) -> argparse.ArgumentParser:
    """The options that every stage has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--directory", type=Path, default=Path("training/out"), help="states, logs and weights")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--steps", type=int, default=None, help="end after so many steps")
    parser.add_argument("--seconds", type=float, default=None, help="end after so many seconds of training")
    parser.add_argument("--until", type=float, default=None, help="end at this time of day (Unix, s)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile")
    parser.add_argument("--graph", action=argparse.BooleanOptionalAction, default=True, help="CUDA graphs")
    return parser


def stage_of(name: str, arguments: argparse.Namespace) -> Stage:
    """Of a command, whose process it takes for its own."""
    budget = Budget(arguments.steps, arguments.seconds)
    device = torch.device(arguments.device)
    own_memory(device.type)
    return Stage(name, arguments.directory, device, budget, arguments.seed, until=arguments.until)
