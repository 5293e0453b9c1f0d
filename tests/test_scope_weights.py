"""One model for several instances, for as long as there is one, and for a moment longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from scope_ltx.config import LTX2Config
from scope_ltx.errors import GenerationCancelled
from scope_ltx.hosts.scope.loading import model_loader
from scope_ltx.hosts.scope.options import LoadOptions
from scope_ltx.hosts.scope.weights import OTHERS_NBYTES, SharedWeights
from scope_ltx.hosts.scope.worker import Generation
from scope_ltx.prompt_mix import checked_mix
from scope_ltx.request import Chunk, ChunkRequest, WeightedPrompt
from scope_streaming.clock import Clock
from scope_streaming.weights.background import BackgroundThread
from tests.fakes.clock import FakeClock


class Model:
    """Counts what is under way. `gate` holds its chunks up."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.under_way = self.most = self.closed = 0
        self.finishing: list[Future[Chunk]] = []

    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.gate.wait(10)
        self.under_way -= 1
        self.finishing.append(Future())
        return self.finishing[-1]

    def close(self) -> None:
        assert all(chunk.done() for chunk in self.finishing)
        self.closed += 1


class Models:
    """Loads models, which takes `load_s` of the clock."""

    def __init__(self, clock: FakeClock, load_s: float) -> None:
        self._clock = clock
        self._load_s = load_s
        self.loaded: list[Model] = []

    def __call__(self) -> Model:
        self._clock.advance(self._load_s)
        self.loaded.append(Model())
        return self.loaded[-1]


class WaitingClock(FakeClock):
    """A wait lasts until the test lets time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Semaphore(0)
        self.passed = threading.Semaphore(0)

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.waiting.release()
        assert self.passed.acquire(timeout=10)
        return stop.is_set()

    def someone_waits(self) -> None:
        assert self.waiting.acquire(timeout=10)

    def let_pass(self, seconds: float) -> None:
        """For the one that waits."""
        self.advance(seconds)
        self.passed.release()


def request() -> ChunkRequest:
    return ChunkRequest(LTX2Config(), "a cat", 0)


def until(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + 10
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.001)
    return condition()


def shared(clock: Clock, in_use: Callable[[], int] = lambda: 0) -> tuple[SharedWeights, list[str]]:
    emptied: list[str] = []
    return SharedWeights(clock, in_use, lambda: emptied.append("emptied")), emptied


def test_two_instances_share_one_model() -> None:
    clock = FakeClock()
    weights, emptied = shared(clock)
    load = Models(clock, 1.0)
    first, second = weights.take("a", load), weights.take("a", load)
    other = weights.take("b", load)
    assert len(load.loaded) == 2
    first.close()
    first.close()
    assert load.loaded[0].closed == 0, "twice by the same holder counts once"
    second.close()
    assert load.loaded[0].closed == 1
    assert emptied == ["emptied"]
    other.close()
    with pytest.raises(GenerationCancelled):
        first.submit(request())


def test_a_session_holds_the_model_until_its_thread_has_ended() -> None:
    clock = FakeClock()
    weights, _ = shared(clock)
    load = Models(clock, 1.0)
    instance = weights.take("a", load)
    session = instance.another()
    instance.close()
    assert load.loaded[0].closed == 0
    session.close()
    assert load.loaded[0].closed == 1


def test_a_session_whose_thread_cannot_be_started_gives_the_model_back() -> None:
    class NoThread:
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

        def is_alive(self) -> bool:
            return False

        def join(self, timeout: float | None = None) -> None:
            raise AssertionError("it never ran")

    released: list[str] = []
    made = Generation(
        Model(),
        LTX2Config(),
        checked_mix([WeightedPrompt("a red ball")]),
        "",
        FakeClock(),
        lambda _: NoThread(),
        lambda: released.append("once"),
    )
    with pytest.raises(RuntimeError, match="can't start"):
        made.start()
    made.stop()
    assert made.join(1.0)
    assert released == ["once"]


def test_requests_take_turns_and_those_given_up_are_not_begun() -> None:
    clock = FakeClock()
    weights, _ = shared(clock)
    load = Models(clock, 1.0)
    first, second = weights.take("a", load), weights.take("a", load)
    model = load.loaded[0]
    model.gate.clear()
    late = request()
    outcome: list[object] = []

    def submit_late() -> None:
        try:
            outcome.append(second.submit(late))
        except GenerationCancelled as error:
            outcome.append(error)

    threads = [threading.Thread(target=lambda: first.submit(request())), threading.Thread(target=submit_late)]
    for thread in threads:
        thread.start()
        assert until(lambda: model.under_way == 1)
    late.cancel.set()
    model.gate.set()
    for thread in threads:
        thread.join()
    assert model.most == 1
    assert isinstance(outcome[0], GenerationCancelled)


def test_what_took_long_to_load_is_taken_over() -> None:
    clock = WaitingClock()
    weights, _ = shared(clock)
    load = Models(clock, 30.0)
    weights.take("a", load).close()
    clock.someone_waits()
    again = weights.take("a", load)
    clock.let_pass(0.5)
    assert until(lambda: "scope-ltx-kept" not in {thread.name for thread in threading.enumerate()})
    assert len(load.loaded) == 1
    assert load.loaded[0].closed == 0
    again.submit(request())
    load.loaded[0].finishing[0].set_exception(RuntimeError("broken"))
    again.close()
    clock.someone_waits()
    clock.let_pass(1.0)
    clock.someone_waits()
    assert load.loaded[0].closed == 0
    clock.let_pass(1.5)
    assert until(lambda: load.loaded[0].closed == 1), "and goes when nobody comes"


def test_it_goes_at_once_when_somebody_else_wants_memory() -> None:
    clock, used = WaitingClock(), [10 * OTHERS_NBYTES]
    weights, emptied = shared(clock, lambda: used[0])
    load = Models(clock, 30.0)
    weights.take("a", load).close()
    clock.someone_waits()
    used[0] += 2 * OTHERS_NBYTES
    clock.let_pass(0.05)
    assert until(lambda: load.loaded[0].closed == 1)
    assert until(lambda: emptied == ["emptied"])


def test_another_model_is_loaded_when_the_kept_one_is_gone() -> None:
    clock = WaitingClock()
    weights, _ = shared(clock)
    load = Models(clock, 30.0)
    weights.take("a", load).close()
    clock.someone_waits()

    def load_other() -> Model:
        assert load.loaded[0].closed == 1, "both at once"
        return load()

    weights.take("b", load_other)
    clock.let_pass(0.05)
    assert len(load.loaded) == 2


def test_a_model_that_cannot_be_loaded_can_be_tried_again() -> None:
    clock = FakeClock()
    weights, _ = shared(clock)
    load = Models(clock, 1.0)

    def fail() -> Model:
        raise OSError("no such file")

    with pytest.raises(OSError, match="no such file"):
        weights.take("a", fail)
    weights.take("a", load).close()
    assert load.loaded[0].closed == 1


def test_what_is_being_decoded_is_waited_for() -> None:
    clock = FakeClock()
    weights, _ = shared(clock)
    load = Models(clock, 1.0)
    lease = weights.take("a", load)
    lease.submit(request())
    model = load.loaded[0]
    closing = threading.Thread(target=lease.close)
    closing.start()
    time.sleep(0.05)
    assert model.closed == 0
    model.finishing[0].set_exception(GenerationCancelled("given up"))
    closing.join(10)
    assert model.closed == 1


def test_models_of_one_process_compile_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the first one is gone: the switch interval, tracing and memory are the process's."""
    given: list[BackgroundThread] = []

    def load(*arguments: Any) -> Model:
        given.append(arguments[-1])
        return Model()

    monkeypatch.setattr("scope_ltx.pipeline.load_pipeline", load)
    loader = model_loader()
    for _ in range(2):
        loader(tmp_path, LoadOptions(device="cpu"), LTX2Config()).close()
    assert given[0] is given[1]
