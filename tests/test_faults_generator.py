"""Chunks that fail: told in a sentence, and the stream goes on. docs/reliability.md lists the faults."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from scope_ltx.config import LTX2Config
from scope_ltx.errors import NotFiniteError
from scope_ltx.pipeline import load_pipeline
from scope_ltx.request import Chunk, ChunkRequest
from tests.fakes.generator import TestCardGenerator
from tests.fakes.live_app import SDP, live, offer_sdp, until

TRANSFORMER = "diffusion_models/ltx-2.3-22b-distilled-1.1_transformer_only_fp8_scaled.safetensors"


class OutOfMemoryError(RuntimeError):
    """Named as torch names it."""


def raising(error: Exception) -> Callable[[Chunk], Chunk]:
    def fault(_: Chunk) -> Chunk:
        raise error

    return fault


def not_finite(chunk: Chunk) -> Chunk:
    samples = chunk.samples.copy()
    samples[0, 100] = np.nan
    return Chunk(chunk.frames, samples, chunk.sample_rate, chunk.stats)


def too_short(chunk: Chunk) -> Chunk:
    return Chunk(chunk.frames, chunk.samples[:, :-5], chunk.sample_rate, chunk.stats)


class Faulty(TestCardGenerator):
    """Every chunk of the prompt "fail" has the fault."""

    def __init__(self, fault: Callable[[Chunk], Chunk]) -> None:
        super().__init__()
        self._fault = fault

    def generate(self, request: ChunkRequest) -> Chunk:
        chunk = super().generate(request)
        return self._fault(chunk) if request.prompt == "fail" else chunk


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (raising(RuntimeError("the kernel could not be launched")), "the kernel could not be launched"),
        (raising(KeyError("blocks.3")), "an internal error (KeyError: 'blocks.3')"),
        (raising(MemoryError()), "this machine ran out of memory: lower the size"),
        (raising(OutOfMemoryError("CUDA out of memory.")), "the device ran out of memory: lower the size"),
        (not_finite, "the chunk's sound came out as NaN or infinity"),
        (too_short, "9 frames at 24 fps need 18000"),
    ],
)
async def test_a_chunk_that_fails_is_told_and_the_stream_goes_on(
    fault: Callable[[Chunk], Chunk], sentence: str
) -> None:
    async with live(start=lambda: Faulty(fault)) as client:
        await client.post("/api/prompt", json={"prompt": "fail"})
        failing = await until(client, lambda status: status["last_error"] is not None)
        assert sentence in failing["last_error"]
        empty = await until(client, lambda status: status["state"] == "error")
        assert empty["buffer_s"] == 0
        # A viewer may still join: silence is sent until there is something to see again.
        assert (await client.post("/whep", content=await offer_sdp(), headers=SDP)).status_code == 201
        await client.post("/api/prompt", json={"prompt": "a red ball"})
        well = await until(
            client, lambda status: status["state"] == "live" and (status["chunk"] or 0) > (failing["chunk"] or 0)
        )
        assert well["last_error"] is None
        assert well["viewers"] == 1


@pytest.fixture(scope="module")
def nan_models(small_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The small model with one number of one layer that is no number."""

    def make(name: str) -> Path:
        directory = tmp_path_factory.mktemp("nan") / "model"
        shutil.copytree(small_model_dir, directory)
        with safe_open(directory / TRANSFORMER, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            metadata = file.metadata()
        (key,) = [key for key in tensors if key.endswith(f".{name}")]
        tensors[key].view(-1)[0] = float("nan")
        (directory / TRANSFORMER).unlink()
        save_file(tensors, directory / TRANSFORMER, metadata)
        return directory

    return make


@pytest.mark.parametrize(("layer", "what"), [("proj_out.bias", "picture"), ("audio_proj_out.bias", "sound")])
def test_latents_that_are_nan_are_never_decoded(nan_models: Callable[[str], Path], layer: str, what: str) -> None:
    config = LTX2Config(height=64, width=64, num_frames=9, num_steps=1)
    pipeline = load_pipeline(nan_models(layer), "cpu", first=config)
    try:
        with pytest.raises(NotFiniteError, match=rf"the chunk's {what} came out as NaN .* lower it"):
            pipeline.submit(ChunkRequest(config, "a red ball", 1))
    finally:
        pipeline.close()
