"""Trains a LoRA by flow matching on clips of its kind.

    python -m training.lora --kind control --seconds 45

control     the outlines or edges of a reference video of half the size, filled as the prompt says
colorizer   a grey reference video in the colours that the prompt names
cameraman   the camera's move of a reference video, which the prompt does not name
identity    the timbre of a voice clip, for a voice that the prompt does not name
striped     a style: everything is striped
chime       picture and sound: everything swells to a bell, once a second

Needs training/out/transformer.safetensors: the weights as flow matching left them, though the LoRA is used with
the distilled ones. Trained on the distilled ones, it also has to undo what was distilled in: `control` then shared
.602 of its reference's area at strength 1, no more than at .75; trained like this .640, and more with every
strength. Leaves training/out/lora-KIND.safetensors, in the modules' own names. Without a GPU, on small clips, and
on the distilled weights because only those ship, some ten minutes:

    python -m training.lora --kind control --transformer distilled.safetensors --steps 300 --device cpu \
        --no-compile --no-graph --small-batch 8 --full-share 0
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scope_ltx.lora.kinds import AUDIO_PARTS
from training.bank import DOWNSCALE, SIZES, Bank, Kind, SizeName
from training.conditions import Conditioner, Shares
from training.distill import load_model
from training.joint import JointModel
from training.masters import Masters, round_to_fp8
from training.stage import Stage, stage_arguments, stage_of
from training.text import CaptionEncoder
from training.transformer import (
    Course,
    Trainable,
    add_batches,
    as_fp8,
    is_matrix,
    places_of,
    run,
    wait_for,
)

PICTURE_PARTS = ("attn1", "ff")
PARTS: dict[Kind, tuple[str, ...]] = {
    "control": PICTURE_PARTS,
    "colorizer": PICTURE_PARTS,
    "cameraman": PICTURE_PARTS,
    "identity": AUDIO_PARTS,
    "striped": PICTURE_PARTS,
    "chime": (*PICTURE_PARTS, "audio_attn1", "audio_ff"),
}
RANKS: dict[Kind, int] = {
    "control": 6,
    "colorizer": 5,
    "cameraman": 5,
    "identity": 4,
    "striped": 3,
    "chime": 3,
}
_SHARES: dict[Kind, Shares] = {
    # A voice is imitated in sound that is generated; a guide is the stronger, the less else is given.
    "identity": Shares(driving=0.0, beginning=0.1, first_frame=0.1, published_level=0.7),
    **{
        kind: Shares(first_frame=0.1, beginning=0.05, driving=0.05, published_level=0.7)
        for kind in ("control", "colorizer", "cameraman", "striped", "chime")
    },
}

_WITHOUT_VOICE = 0.2
"""Of the steps of `identity`: no voice to listen to, which is what guidance compares with. With a LoRA that always
heard one guidance did harm to the weights from nothing: the right timbre in .85 of 27 clips with it and 1.0
without. With these steps 1.0 and .96 of 81, and of the weights that ship .95 both, on shorter clips."""

WARM_UP = 40
RATE = 0.015
"""Of AdamW: ten times that of whole weights. Errors on held-out small clips, after 120 steps in batches of 8, of
the sound with `identity`: 1.30 at the start, .80 at .0015, .41 at .005, .38 at .015 (Muon at .01: .46). Of the
picture with `control` after 75: .79 at the start, .58 at .0015, .30 at .015."""


class LoraLinear(nn.Module):
    """A frozen layer with a change of low rank. down: (r, in), up: (out, r)."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        like = layer.weight
        self.down = nn.Parameter(torch.randn(rank, layer.in_features).to(like) / math.sqrt(layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank).to(like))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x) + nn.functional.linear(nn.functional.linear(x, self.down), self.up)
        return result


def add_lora(transformer: nn.Module, parts: tuple[str, ...], rank: int) -> dict[str, nn.Parameter]:
    """Put a LoRA over every matrix in these parts of the blocks; its factors by `MODULE.down` and `MODULE.up`."""
    factors = {}
    for module, layer in list(transformer.named_modules()):
        names = module.split(".")
        wanted = names[0] == "transformer_blocks" and len(names) > 2 and names[2] in parts
        if wanted and isinstance(layer, nn.Linear) and is_matrix(f"{module}.weight", layer.weight):
            changed = LoraLinear(layer, rank)
            parent, _, leaf = module.rpartition(".")
            setattr(transformer.get_submodule(parent), leaf, changed)
            factors[f"{module}.down"], factors[f"{module}.up"] = changed.down, changed.up
    return factors


@torch.no_grad()
def round_as_published(model: JointModel) -> None:
    """The weights as FP8 files give them back: what a LoRA is added to."""
    for name, parameter in model.named_parameters():
        if as_fp8(name, parameter):
            parameter.copy_(round_to_fp8(parameter.float()[None])[0])


@dataclass(frozen=True)
class Draw:
    """Clips of one size, whether with the voices that belong to them, and their share of the steps."""

    size: SizeName
    voices: bool
    share: float


def draws_of(kind: Kind, full_share: float) -> list[Draw]:
    """What to draw from; the shares' sum is 1."""
    sizes: dict[SizeName, float] = {"small": 1.0 - full_share, "full": full_share}
    voices = {True: 1.0 - _WITHOUT_VOICE, False: _WITHOUT_VOICE} if kind == "identity" else {False: 1.0}
    every = [Draw(size, heard, sizes[size] * part) for size in sizes for heard, part in voices.items()]
    return [draw for draw in every if draw.share > 0.0]


def courses_of(
    arguments: argparse.Namespace, draws: Sequence[Draw], stage: Stage, model: JointModel
) -> list[Course]:
    """One for each draw. Waits for the first clips."""
    kind: Kind = arguments.kind
    empty = CaptionEncoder(stage.device).features([""])
    batches = {"small": arguments.small_batch, "full": arguments.full_batch}
    banks = {size: Bank(arguments.bank, kind, size, stage.device) for size in {draw.size for draw in draws}}
    wait_for(list(banks.values()), arguments.least_clips, 120.0)
    courses = []
    for draw in draws:
        bank = banks[draw.size]
        assert bank.clips is not None
        batch, generator = batches[draw.size], stage.generator
        conditioner = Conditioner(bank.clips, batch, empty, generator, _SHARES[kind], voices=draw.voices)
        places = places_of(model, SIZES[draw.size], downscale=DOWNSCALE.get(kind, 0), voice=draw.voices)
        courses.append(Course(conditioner, places, bank))
    return courses


def main() -> None:
    parser = stage_arguments("Trains a LoRA for the distilled transformer")
    add_batches(parser)
    parser.add_argument("--kind", required=True, choices=[kind for kind in get_args(Kind) if kind != "base"])
    parser.add_argument("--transformer", default="transformer.safetensors", help="trained on these of --directory")
    parser.add_argument("--start", type=Path, default=None, help="go on from these factors")
    arguments = parser.parse_args()
    kind: Kind = arguments.kind
    base = arguments.directory / arguments.transformer
    if not base.is_file():
        parser.error(
            f"{base} is not there: training.transformer leaves it. Of the shipped model, taken apart by "
            "training.unpack, there is --transformer distilled.safetensors"
        )
    stage = stage_of(f"lora-{kind}", arguments)
    model = load_model(base, arguments.seed, stage.device, compiled=arguments.compile)
    round_as_published(model)
    model.requires_grad_(False)
    torch.manual_seed(arguments.seed)
    factors = add_lora(model.transformer, PARTS[kind], RANKS[kind])
    masters = Masters(factors, muon=lambda *_: False, fp8=lambda *_: False, adam_rate=RATE, mean_decay=0.995)
    state = stage.resume()
    if state is not None:
        masters.restore(state)
    elif arguments.start is not None:
        masters.load(load_file(arguments.start))
    draws = draws_of(kind, arguments.full_share)
    courses = courses_of(arguments, draws, stage, model)
    trainable = Trainable(model, masters, courses, graphed=arguments.graph)
    for which in range(len(courses)):
        trainable.step(which, 0.0)  # compiles, and leaves the factors as they are
    stage.start_clock()
    weights = arguments.directory / f"lora-{kind}.safetensors"
    run(stage, trainable, weights, [draw.share for draw in draws], arguments.log_every, WARM_UP)
    stage.plot(tuple(f"{name}_to_{edge}" for name in ("video", "audio") for edge in ("0.6", "0.85", "0.97")))


if __name__ == "__main__":
    main()
