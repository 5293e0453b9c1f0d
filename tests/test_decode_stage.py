"""Decoding beside the next chunk: when, on which thread, and what it leaves to the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

import pytest
import torch
from torch import Tensor, nn

from scope_ltx.models.antialias import Activation, antialiased_snake
from scope_ltx.models.decode import AudioDecoder, Grid, Latents, VideoDecoder
from scope_ltx.models.decode_stage import DecodeStage
from scope_streaming.weights.graphs import Launch
from tests.tiny import tiny_parts

GRID: Grid = (2, 1, 1)
CPU = torch.device("cpu")


class Replays:
    """A runner that has captured whatever it ran once."""

    name = "replays"

    def __init__(self) -> None:
        self.keys: set[Hashable] = set()

    def run(self, key: Hashable, launch: Launch, *, warm: bool = False) -> None:
        self.keys.add(key)
        launch()

    def replays(self, key: Hashable) -> bool:
        return key in self.keys

    def forget(self, group: Hashable = None) -> None:
        self.keys.clear()


class HandCompiled:
    """The compiled form is the function itself, from the moment that a test says."""

    def __init__(self) -> None:
        self.ready = False
        self.calls = 0

    def form(
        self, shape: Hashable, rehearse: Callable[[], Callable[[Activation], None]]
    ) -> tuple[str, Activation]:
        return ("compiled" if self.ready else "eager"), self._call

    def _call(self, *arguments: Tensor) -> Tensor:
        self.calls += 1
        return antialiased_snake(*arguments)


class OnePixelVae(nn.Module):
    """A frame of one pixel per latent frame, as red as the first channel says."""

    latents_mean, latents_std, dtype = torch.zeros(128), torch.ones(128), torch.float32

    def decode(self, latents: Tensor, timestep: None, return_dict: bool) -> tuple[Tensor]:
        return (latents[:, :3],)


class FlatSoundVae(nn.Module):
    latents_mean, latents_std, dtype = torch.zeros(128), torch.ones(128), torch.float32

    class config:  # noqa: N801 - as diffusers names it
        latent_channels = 8

    def decode(self, latents: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (latents,)


class Loud(nn.Module):
    def forward(self, mel: Tensor) -> Tensor:
        return mel.mean(dim=(1, 3))[:, None].expand(1, 2, -1).repeat_interleave(480, dim=2)


def stage() -> DecodeStage:
    return DecodeStage(
        VideoDecoder(OnePixelVae(), Replays()), AudioDecoder(FlatSoundVae(), Loud(), Replays()), CPU
    )


def latents(level: float) -> Latents:
    return Latents(torch.full((1, 2, 128), level), torch.full((1, 3, 128), level))


def test_what_is_decoded_belongs_to_the_caller() -> None:
    decode = stage()
    frames, samples = decode.decode(latents(1.0), GRID, 1000)
    decode.decode(latents(-1.0), GRID, 1000)
    assert frames.unique().tolist() == [255]
    assert (samples.shape, samples.unique().tolist()) == ((2, 1440), [1.0])
    decode.close()


def test_too_few_audio_latents_are_refused() -> None:
    decode = stage()
    with pytest.raises(ValueError, match="3 audio latents give 1440 samples, 1441 needed"):
        decode.decode(latents(0.0), GRID, 1441)
    decode.close()


def beside(decode: DecodeStage, grid: Grid = GRID, audio_tokens: int = 3, *, may_overlap: bool = True) -> bool:
    """Whether a decode of latents of these sizes would run beside its caller."""
    return decode.start(lambda beside: beside, grid, audio_tokens, may_overlap=may_overlap).result()


def test_a_size_may_be_decoded_beside_other_work_once_everything_is_captured() -> None:
    decode = stage()
    assert not beside(decode)
    decode.decode(latents(0.0), GRID, 1000)
    assert not beside(decode), "the first decode of a size only warms up"
    decode.decode(latents(0.0), GRID, 1000)
    assert beside(decode)
    assert not beside(decode, may_overlap=False)
    assert not beside(decode, (3, 1, 1), 3)
    assert not beside(decode, GRID, 4)
    decode.forget()
    assert not beside(decode)
    decode.close()


def warmed_up() -> DecodeStage:
    decode = stage()
    for _ in range(2):
        decode.decode(latents(0.0), GRID, 1000)
    return decode


def test_beside_is_another_thread_and_the_next_start_waits_for_it() -> None:
    decode = warmed_up()
    gate = threading.Event()
    events: list[str] = []

    def slow(_: bool) -> str:
        assert gate.wait(5)
        events.append("slow")
        return threading.current_thread().name

    first = decode.start(slow, GRID, 3)
    assert decode.busy
    opener = threading.Timer(0.02, gate.set)
    opener.start()
    second = decode.start(lambda _: events.append("quick"), GRID, 3, may_overlap=False)
    assert events == ["slow", "quick"]
    assert first.result().startswith("decode")
    assert second.done()
    assert not decode.busy
    decode.close()


def test_what_follows_a_decode_comes_before_the_next_one() -> None:
    """Chunks are placed by what waits for their decode: the one after must not overtake them."""
    decode = warmed_up()
    begun, placing = threading.Event(), threading.Event()
    events: list[str] = []

    def place(_: object) -> None:
        assert placing.wait(5)
        events.append("placed")

    first = decode.start(lambda _: begun.wait(5), GRID, 3)
    first.add_done_callback(place)
    begun.set()
    opener = threading.Timer(0.05, placing.set)
    opener.start()
    decode.start(lambda _: events.append("quick"), GRID, 3, may_overlap=False)
    assert events == ["placed", "quick"]
    decode.close()


def test_without_a_thread_it_raises_and_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = warmed_up()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            beside(decode)
    assert not decode.busy
    assert beside(decode)
    decode.close()


def test_what_fails_is_raised_here_or_is_in_the_future() -> None:
    decode = warmed_up()

    def broken(_: bool) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        decode.start(broken, GRID, 3, may_overlap=False)
    assert isinstance(decode.start(broken, GRID, 3).exception(), torch.OutOfMemoryError)
    decode.close()


def test_activations_of_diffusers_vocoder_in_their_compiled_form() -> None:
    """The form is taken between two decodes, gives up what was captured, and sounds the same."""
    parts = tiny_parts()
    forms = HandCompiled()
    decoder = AudioDecoder(parts.audio_vae, parts.vocoder, Replays(), forms)
    tokens = torch.randn(1, 3, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        decoder.settle()
        plain = decoder.decode(tokens).clone()
        decoder.decode(tokens)
        assert decoder.replays(3)
        forms.ready = True
        decoder.settle()
        assert not decoder.replays(3)
        compiled = decoder.decode(tokens)
    assert forms.calls > 0
    assert torch.linalg.norm(compiled - plain) <= 1e-5 * torch.linalg.norm(plain)
