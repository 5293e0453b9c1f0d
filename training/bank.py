"""Clips on disk: rendered and encoded by several processes at once, picked up by training as they land.

    python -m training.bank --worker 0 --workers 6

Each shard is drawn from a seed of its own, so that the bank is the same for any number of workers. They make the
base model's clips first, then those of the LoRAs.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from scope_ltx.config import LTX2Config
from scope_ltx.control.frames import resize
from scope_ltx.freed_memory import own_memory
from scope_ltx.sampling.geometry import ChunkGeometry
from training.clips import (
    FPS,
    FULL,
    SMALL,
    TENSORS,
    VOICE_TOKENS,
    Clips,
    Encoders,
    captions_of,
    samples_for,
    scenes_to_clips,
)
from training.export import read_audio_vae, read_video_vae
from training.stage import SEED
from training.world.guide import guide
from training.world.scene import Scene, sample_scene
from training.world.sound import render_sound
from training.world.words import SPEAKERS

Kind = Literal["base", "control", "colorizer", "cameraman", "identity", "striped", "chime"]
SizeName = Literal["small", "full"]
SIZES: dict[SizeName, LTX2Config] = {"small": SMALL, "full": FULL}

DOWNSCALE: dict[Kind, int] = {"control": 2, "colorizer": 1, "cameraman": 1}
"""Of the kinds with a reference video: how many times smaller it is than the clip."""

_SHARD: dict[SizeName, int] = {"small": 256, "full": 64}
_LATER_SHARE = 0.1
"""Of the shards whose clips begin later than their scenes."""
_NAMED_SPEAKER_SHARE = 0.9


@dataclass(frozen=True)
class Job:
    """One shard."""

    kind: Kind
    size: SizeName
    index: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.size}-{self.index:04d}.pt"


def jobs(base: dict[SizeName, int], lora: dict[SizeName, int], kinds: Sequence[Kind]) -> list[Job]:
    """All shards for so many clips of each size, in the order in which they are wanted."""
    counts = {size: -(-base[size] // _SHARD[size]) for size in SIZES}
    # Both sizes advance together: training begins with the first of each.
    wanted = [
        ((index + 1) / counts[size], Job("base", size, index)) for size in SIZES for index in range(counts[size])
    ]
    ordered = [job for _, job in sorted(wanted, key=lambda one: one[0])]
    for kind in kinds:
        ordered += [Job(kind, size, index) for size in SIZES for index in range(-(-lora[size] // _SHARD[size]))]
    return ordered


def make(encoders: Encoders, job: Job, seed: int) -> Clips:
    """The clips of a shard."""
    rng = random.Random(f"{seed} {job.name}")
    scenes = [_scene(job.kind, rng) for _ in range(_SHARD[job.size])]
    captions = [_captions(job.kind, scene, rng) for scene in scenes]
    start_s = rng.randrange(400) / 100.0 if rng.random() < _LATER_SHARE else 0.0
    return scenes_to_clips(
        encoders,
        SIZES[job.size],
        scenes,
        captions,
        start_s=start_s,
        guide=(lambda *scene: _guide(job.kind, rng, encoders.device, *scene)) if job.kind in DOWNSCALE else None,
        voice=(lambda part: _voices(part, rng, encoders.device)) if job.kind == "identity" else None,
    )


def _scene(kind: Kind, rng: random.Random) -> Scene:
    match kind:
        case "cameraman":
            return sample_scene(rng, split="train", moving_camera=0.85, two_objects=0.1)
        case "identity":
            return sample_scene(rng, split="train", speaker=1.0)
        case "control" | "colorizer":
            # The reference says what is an outline; the prompt asks for the filled thing.
            return sample_scene(rng, split="train", outline=0.0)
        case "striped":
            return replace(sample_scene(rng, split="train", outline=0.0), style="striped")
        case "chime":
            return replace(sample_scene(rng, split="train", moving_camera=0.0), effect="chime")
        case _:
            # More of what is rare than the world has (.15 and .12): after 75,000 steps named voices were right in
            # .53 of the clips, outlines drawn as such in .69, and everything else in .94 or more.
            return sample_scene(rng, split="train", speaker=0.35, outline=0.2)


def _captions(kind: Kind, scene: Scene, rng: random.Random) -> list[str]:
    named = kind != "identity" and rng.random() < _NAMED_SPEAKER_SHARE
    return captions_of(scene, rng, name_speaker=named, name_camera=kind != "cameraman")


def _guide(
    kind: Kind,
    rng: random.Random,
    device: torch.device,
    scenes: Sequence[Scene],
    config: LTX2Config,
    start_s: float,
) -> Tensor:
    """Reference clips as the product encodes them: drawn at the clip's size, then made smaller."""
    drawn_as: Literal["outline", "canny", "grey", "camera"]
    match kind:
        case "control":
            drawn_as = "canny" if rng.random() < 0.5 else "outline"
        case "colorizer":
            drawn_as = "grey"
        case _:
            drawn_as = "camera"
    clips = guide(scenes, drawn_as, config.height, config.width, config.num_frames, FPS, device, start_s=start_s)
    factor = DOWNSCALE[kind]
    if factor == 1:
        return clips
    height, width = config.height // factor, config.width // factor
    bytes_ = clips.add(1.0).mul_(127.5).round_().to(torch.uint8).permute(0, 1, 3, 4, 2)
    smaller = torch.stack([resize(clip, height, width) for clip in bytes_])
    return smaller.permute(0, 1, 4, 2, 3).float().div_(127.5).sub_(1.0)


def _voices(scenes: Sequence[Scene], rng: random.Random, device: torch.device) -> Tensor:
    """(B, N): the same speakers in other scenes."""
    others = [replace(sample_scene(rng, split="train"), speaker=scene.speaker) for scene in scenes]
    assert all(scene.speaker in SPEAKERS for scene in scenes)
    return render_sound(others, samples_for(VOICE_TOKENS), FPS, device)[:, 0]


def save(directory: Path, job: Job, clips: Clips) -> None:
    path = directory / job.name
    scratch = path.with_suffix(".part")
    torch.save({name: value.cpu() for name, value in clips.tensors().items()}, scratch)
    scratch.replace(path)


class Bank:
    """The clips of one kind and size that have landed so far, on a device."""

    def __init__(self, directory: Path, kind: Kind, size: SizeName, device: torch.device) -> None:
        self._directory, self._pattern, self._device = directory, f"{kind}-{size}-*.pt", device
        self._geometry = ChunkGeometry.of(SIZES[size])
        self._seen: set[str] = set()
        self.clips: Clips | None = None

    def __len__(self) -> int:
        return 0 if self.clips is None else len(self.clips)

    def pick_up(self) -> bool:
        """Add what is new; True if there was something."""
        fresh = sorted(path for path in self._directory.glob(self._pattern) if path.name not in self._seen)
        if not fresh:
            return False
        self._seen |= {path.name for path in fresh}
        parts = [torch.load(path, map_location=self._device, weights_only=True) for path in fresh]
        parts = ([] if self.clips is None else [self.clips.tensors()]) + parts
        names = [name for name in TENSORS if name in parts[0]]
        self.clips = Clips(self._geometry, **{name: torch.cat([part[name] for part in parts]) for name in names})
        return True


def load_encoders(directory: Path, device: torch.device) -> Encoders:
    """From the trained autoencoders in a directory."""
    return Encoders(
        read_video_vae(directory / "video_vae.safetensors"),
        read_audio_vae(directory / "audio_vae.safetensors"),
        device,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Renders and encodes clips, a share of them for each worker")
    parser.add_argument("--directory", type=Path, default=Path("training/out"))
    parser.add_argument("--bank", type=Path, default=Path("training/out/bank"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--small", type=int, default=12288)
    parser.add_argument("--full", type=int, default=6144)
    parser.add_argument("--lora-small", type=int, default=768)
    parser.add_argument("--lora-full", type=int, default=512)
    parser.add_argument("--kinds", default="control,identity,colorizer,striped,chime,cameraman")
    arguments = parser.parse_args()
    arguments.bank.mkdir(parents=True, exist_ok=True)
    own_memory(arguments.device)
    encoders = load_encoders(arguments.directory, torch.device(arguments.device))
    kinds: list[Kind] = [kind for kind in arguments.kinds.split(",") if kind]
    wanted = jobs(
        {"small": arguments.small, "full": arguments.full},
        {"small": arguments.lora_small, "full": arguments.lora_full},
        kinds,
    )
    for job in wanted[arguments.worker :: arguments.workers]:
        if not (arguments.bank / job.name).is_file():
            save(arguments.bank, job, make(encoders, job, arguments.seed))


if __name__ == "__main__":
    main()
