"""Puts the trained parts together as the model that ships: the published layout, FP8 and bfloat16.

    python -m training.package --bank training/out/bank --target scope_ltx/models/small/weights

With clips of a bank, the transformer's weights are rounded to FP8 with what its layers see in mind (`calibrate`),
without each to its nearest value: weights that were FP8 before, those of `unpack`, lose nothing by that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from scope_ltx.catalog import LORA_DIRECTORY, load_catalog
from scope_ltx.models.small.lora_weights import published_factors
from scope_ltx.models.small.published import Parts, Quantizes, nearest, write_parts
from scope_ltx.models.small.safetensors_file import write_safetensors
from training.bank import DOWNSCALE, Kind
from training.calibrate import calibrated
from training.export import read_audio_vae, read_video_vae, read_vocoder
from training.stage import SEED
from training.text import text_encoder_state, world_tokenizer

State = dict[str, Tensor]

CATALOGUED: dict[Kind, str] = {
    "control": "union-control",
    "colorizer": "colorizer",
    "cameraman": "cameraman",
    "identity": "id-lora",
}
"""LoRAs that do in small what a published one does, under its file name."""
SHIPPED_RANKS: dict[Kind, int] = {
    "control": 5,
    "colorizer": 3,
    "cameraman": 4,
    "identity": 3,
    "striped": 3,
    "chime": 2,
}
"""All files together may have 24 MiB: one rank less than trained saves 29 kB of a picture's LoRA, 72 of a
voice's."""
OWN: dict[Kind, str] = {
    "striped": "small-style-striped.safetensors",
    "chime": "small-audio-video-chime.safetensors",
}


def parts_of(directory: Path, transformer: str = "distilled.safetensors") -> Parts:
    """What training has left in a directory."""
    tokenizer = world_tokenizer()
    joint = load_file(directory / transformer)
    return Parts(
        transformer=_below(joint, "transformer."),
        connectors=_below(joint, "connectors."),
        text_encoder=text_encoder_state(tokenizer),
        tokenizer=tokenizer,
        video_vae=read_video_vae(directory / "video_vae.safetensors"),
        audio_vae=read_audio_vae(directory / "audio_vae.safetensors"),
        vocoder=read_vocoder(directory / "vocoder.safetensors"),
    )


def _below(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value.float() for name, value in state.items() if name.startswith(prefix)}


def of_rank(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(r, in), (out, r) -> the nearest change of at most `rank`, by the largest singular values of their
    product."""
    if len(down) <= rank:
        return down, up
    left, values, right = torch.linalg.svd(up.float() @ down.float(), full_matrices=False)
    share = values[:rank].sqrt()
    return share[:, None] * right[:rank], left[:, :rank] * share


def write_lora(directory: Path, target: Path, kind: Kind) -> None:
    """One trained LoRA as a published file below `target`."""
    factors = load_file(directory / f"lora-{kind}.safetensors")
    modules = sorted({name.rpartition(".")[0] for name in factors})
    rank = SHIPPED_RANKS[kind]
    pairs = {module: of_rank(factors[f"{module}.down"], factors[f"{module}.up"], rank) for module in modules}
    downscale = DOWNSCALE.get(kind, 1)
    marks = {"reference_downscale_factor": str(downscale)} if downscale > 1 else {}
    file = load_catalog().find(CATALOGUED[kind]).file if kind in CATALOGUED else OWN[kind]
    path = target / LORA_DIRECTORY / file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, published_factors(pairs), {"format": "pt", **marks})


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the files of the small model from what training has left")
    parser.add_argument("--directory", type=Path, default=Path("training/out"))
    parser.add_argument("--target", type=Path, default=Path("scope_ltx/models/small/weights"))
    parser.add_argument("--transformer", default="distilled.safetensors")
    parser.add_argument("--bank", type=Path, help="clips to see what rounding to FP8 should leave as it is")
    parser.add_argument("--device", default="cpu", help="that looks at them")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    quantize: Quantizes = nearest
    if arguments.bank is not None:
        weights, device = arguments.directory / arguments.transformer, torch.device(arguments.device)
        quantize = calibrated(weights, arguments.bank, arguments.seed, device)
    with torch.no_grad():
        parts = parts_of(arguments.directory, arguments.transformer)
        write_parts(arguments.target, parts, arguments.seed, quantize)
        for kind in (*CATALOGUED, *OWN):
            if (arguments.directory / f"lora-{kind}.safetensors").is_file():
                write_lora(arguments.directory, arguments.target, kind)
    total = sum(path.stat().st_size for path in arguments.target.rglob("*") if path.is_file())
    print(f"{total / 2**20:.2f} MiB")  # noqa: T201 - the result of a command


if __name__ == "__main__":
    main()
