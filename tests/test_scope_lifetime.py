"""The plugin with the small model and real threads: loaded, used, unloaded, and nothing left of it."""

from __future__ import annotations

import ctypes
import gc
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from scope_ltx.config import LTX2Config
from scope_ltx.errors import CheckpointError
from scope_ltx.hosts.scope import loading, pipeline_class
from scope_ltx.hosts.scope.node import Parts, build_pipeline_class
from scope_ltx.hosts.scope.weights import SharedWeights
from scope_ltx.hosts.scope.worker import worker_thread
from scope_ltx.manifest import load_manifest
from scope_ltx.pipeline import load_pipeline
from scope_ltx.request import ChunkRequest
from scope_streaming.clock import SystemClock
from tests.fakes.scope_api import host_api, install
from tests.fakes.scope_host import FakeScopeHost

TINY = {"height": 32, "width": 32, "num_frames": 9, "num_steps": 1, "schedule": "linear", "device": "cpu"}
LONG = {"height": 384, "width": 320, "num_frames": 129, "device": "cpu"}
PATIENCE_S = 60.0


def scope_class(models: Path, kept_s: float = 0.0) -> type[Any]:
    clock = SystemClock()
    weights = SharedWeights(clock, loading.device_nbytes, loading.empty_caches, kept_s, worth_s=0.0)
    parts = Parts(clock, worker_thread, weights, loading.find_model, loading.identity_of, loading.model_loader())
    return build_pipeline_class(host_api(models), parts)


@pytest.fixture
def small(small_model_dir: Path) -> FakeScopeHost:
    return FakeScopeHost(scope_class(small_model_dir.parent))


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def on_host_thread(work: Callable[[], Any]) -> Any:
    """As the host's worker: a thread that is gone afterwards."""
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(work()))
    thread.start()
    thread.join()
    return outcome.pop()


def outputs(pipeline: Any, count: int, **parameters: object) -> list[dict[str, Any]]:
    """Call as the host does until there are so many."""
    found: list[dict[str, Any]] = []
    end_s = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < end_s:
        output = pipeline(**{"prompts": "a cat", "init_cache": not found, **parameters})
        if output:
            found.append(output)
        else:
            time.sleep(0.01)
    return found


def until(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.01)
    return condition()


def tensor_nbytes() -> int:
    """Memory of every tensor that is alive, views counted once. A compiler's stand-ins have none."""
    held = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter):
            storage = thing.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    return sum(held.values())


@pytest.fixture
def one_arena() -> None:
    """Each thread of a cycle may else get another of glibc's arenas, and what those keep moves resident memory by
    50 MB, as much as a model; with one it stays within 10."""
    if sys.platform == "linux":
        arena_max = -8  # malloc.h
        ctypes.CDLL(None).mallopt(arena_max, 1)


def resident_nbytes() -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


@pytest.mark.alone
@pytest.mark.usefixtures("no_collector", "one_arena")
def test_five_loads_and_unloads_leave_nothing(small: FakeScopeHost, small_model_dir: Path) -> None:
    threads, before = set(threading.enumerate()), tensor_nbytes()
    resident = []
    for cycle in range(6):
        instance = weakref.ref(small.load(model=str(small_model_dir), **TINY, base_seed=cycle))
        made = on_host_thread(lambda: outputs(small.pipeline, 1))
        assert len(made) == 1
        assert made[0]["video"].shape[1:] == (32, 32, 3)
        held = tensor_nbytes() - before
        del made
        small.unload()
        assert instance() is None, "something holds the instance"
        assert set(threading.enumerate()) == threads
        assert held > 30 * 2**20
        assert tensor_nbytes() - before < held / 100
        resident.append(resident_nbytes())
    # A sixth of a model lost in each cycle would show in each of the last three. The first brings in libraries.
    assert min(resident[3:]) - resident[0] < held / 2, resident


@pytest.mark.alone
@pytest.mark.usefixtures("no_collector")
def test_unloaded_while_a_chunk_is_being_made(small: FakeScopeHost, small_model_dir: Path) -> None:
    threads = set(threading.enumerate())
    instance = weakref.ref(small.load(model=str(small_model_dir), **LONG))
    on_host_thread(lambda: small.pipeline(prompts="a cat", init_cache=True))
    time.sleep(0.5)
    started_s = time.monotonic()
    small.unload()
    assert instance() is None
    assert set(threading.enumerate()) == threads
    assert time.monotonic() - started_s < 5.0, "the chunk alone takes longer"


def test_a_chunk_can_be_given_up_between_any_two_blocks(small_model_dir: Path) -> None:
    """On a device that captures graphs: between runs of four, of which it has at most two before it
    (`benchmarks.abandon` measures that)."""

    class Asked(threading.Event):
        count = 0

        def is_set(self) -> bool:
            self.count += 1
            return super().is_set()

    pipeline = load_pipeline(small_model_dir, "cpu")
    blocks = len(pipeline.placement.plan.block_nbytes)
    config = LTX2Config(height=32, width=32, num_frames=9, num_steps=3, schedule="linear")
    request = ChunkRequest(config, "a cat", 0, cancel=Asked())
    pipeline.generate(request)
    assert blocks > 1
    assert isinstance(request.cancel, Asked)
    assert request.cancel.count >= 3 * blocks + 1, "and once more before it is decoded"
    pipeline.close()


def test_a_new_session_while_a_chunk_is_being_made(small: FakeScopeHost, small_model_dir: Path) -> None:
    pipeline = small.load(model=str(small_model_dir), **LONG)
    on_host_thread(lambda: pipeline(prompts="a cat", init_cache=True))
    time.sleep(0.3)
    tiny = {name: value for name, value in TINY.items() if name != "device"}
    made = on_host_thread(lambda: outputs(pipeline, 1, prompts="a dog", **tiny))
    assert made[0]["video"].shape == (4, 32, 32, 3)
    assert made[0]["video_timestamps"][0].pts == 0
    assert pipeline.status.prompt == "a dog"
    small.unload()


@pytest.mark.parametrize("name", ["scope-ltx-generation", "decode_0", "a thread of the host's"])
def test_the_last_reference_may_go_anywhere(name: str, small: FakeScopeHost, small_model_dir: Path) -> None:
    """The collector may run on a thread that closing has to wait for."""
    before = tensor_nbytes()
    small.load(model=str(small_model_dir), **TINY)
    on_host_thread(lambda: outputs(small.pipeline, 1))
    thread = threading.Thread(target=small.unload, name=name)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()
    assert until(lambda: tensor_nbytes() - before < 2**20)


@pytest.mark.alone
def test_a_call_never_waits_for_the_model(small: FakeScopeHost, small_model_dir: Path) -> None:
    """Also while a chunk is made, handed over, given up, and begun anew. 20 ms is what the host has for a call."""
    pipeline = small.load(model=str(small_model_dir), **{**LONG, "num_frames": 17, "num_steps": 2})

    def calls() -> list[float]:
        taken: list[float] = []
        end_s, resets = time.monotonic() + 2, 0
        while time.monotonic() < end_s:
            started_s, processor_s = time.monotonic(), time.thread_time()
            output = pipeline(prompts="a cat", init_cache=resets == 0 or len(taken) % 60 == 0)
            # What the thread itself has worked: a busy machine takes it off the processor for longer than that.
            taken.append(min(time.monotonic() - started_s, time.thread_time() - processor_s))
            resets += bool(output)
            time.sleep(0.01)
        return taken

    taken = on_host_thread(calls)
    assert max(taken) < 0.02
    small.unload()


@pytest.mark.alone
def test_other_parameters_are_loaded_within_a_second(small_model_dir: Path) -> None:
    """The host drops the old instance first. Its model is taken over."""
    host, before = FakeScopeHost(scope_class(small_model_dir.parent, kept_s=2.0)), tensor_nbytes()
    host.load(model=str(small_model_dir), **TINY)
    on_host_thread(lambda: outputs(host.pipeline, 1))
    started_s = time.monotonic()
    host.load(model=str(small_model_dir), **{**TINY, "num_frames": 17, "base_seed": 7})
    assert time.monotonic() - started_s < 1.0
    made = on_host_thread(lambda: outputs(host.pipeline, 3))
    assert sum(len(output["video"]) for output in made) == 17
    host.unload()
    assert until(lambda: tensor_nbytes() - before < 2**20), "after two seconds nothing is kept"
    assert until(lambda: "scope-ltx-kept" not in {thread.name for thread in threading.enumerate()})


def test_a_missing_file_is_named_with_the_command_that_gets_it(tmp_path: Path, small_model_dir: Path) -> None:
    directory = tmp_path / load_manifest().plugin.scope.models_directory
    host = FakeScopeHost(scope_class(tmp_path))
    with pytest.raises(CheckpointError, match=r"no such model directory.*scope-ltx download"):
        host.load()
    shutil.copytree(small_model_dir, directory)
    for missing in load_manifest().files:
        (directory / missing.path).rename(tmp_path / "away")
        with pytest.raises(CheckpointError) as raised:
            host.load()
        assert missing.path in str(raised.value)
        assert f"scope-ltx download --model {directory}" in str(raised.value)
        (tmp_path / "away").rename(directory / missing.path)


def test_the_class_that_the_plugin_registers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_model_dir: Path
) -> None:
    """Through the host's own modules, and with the files where its downloader puts them."""
    directory = tmp_path / load_manifest().plugin.scope.models_directory
    directory.symlink_to(small_model_dir, target_is_directory=True)
    install(monkeypatch, tmp_path)
    pipeline_class.cache_clear()
    cls = pipeline_class()
    assert pipeline_class() is cls
    host = FakeScopeHost(cls)
    host.load(**TINY)
    made = on_host_thread(lambda: outputs(host.pipeline, 1))
    assert made[0]["audio"].shape[0] == 2
    host.unload()
    pipeline_class.cache_clear()
