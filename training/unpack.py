"""The shipped files -> the parts that later stages go on from: to train LoRAs or a decoder without the rest.

python -m training.unpack --target training/out
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scope_ltx.checkpoints.keys import CONNECTORS, TRANSFORMER
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.small import WEIGHTS

State = dict[str, Tensor]
_SCALE, _NOTE = ".weight_scale", ".comfy_quant"


def joint_state(files: ModelFiles) -> State:
    """Transformer and connectors in the names of `training.joint`, bfloat16, FP8 layers as they come back."""
    published: State = load_file(files.transformer) | load_file(files.text_projection)
    state: State = {}
    for name, value in published.items():
        if name.endswith((_SCALE, _NOTE)):
            continue
        scale = published.get(f"{name.removesuffix('.weight')}{_SCALE}")
        module = TRANSFORMER.to_module(name)
        inner = f"transformer.{module}" if module else f"connectors.{CONNECTORS.to_module(name)}"
        state[inner] = (value.float() if scale is None else value.float() * scale).bfloat16()
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description="Takes the shipped model apart")
    parser.add_argument("--model", type=Path, default=WEIGHTS)
    parser.add_argument("--target", type=Path, default=Path("training/out"))
    arguments = parser.parse_args()
    arguments.target.mkdir(parents=True, exist_ok=True)
    files = ModelFiles.below(arguments.model)
    with torch.no_grad():
        save_file(joint_state(files), arguments.target / "distilled.safetensors")
    save_file(load_file(files.video_vae), arguments.target / "video_vae.safetensors")
    sound = load_file(files.audio_vae)
    for part, is_vocoder in (("audio_vae", False), ("vocoder", True)):
        chosen = {name: value for name, value in sound.items() if name.startswith("vocoder.") == is_vocoder}
        save_file(chosen, arguments.target / f"{part}.safetensors")


if __name__ == "__main__":
    main()
