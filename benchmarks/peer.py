"""A public peer on the same work: diffusers' own forward with group offloading, one block per group."""

from __future__ import annotations

import time
from typing import Any

import torch
from diffusers.hooks import apply_group_offloading

from benchmarks.full_size import build_transformer, draw
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_quant.capability import Fp8Path


@torch.inference_mode(False)
@torch.no_grad()
def group_offloading_steps(
    path: Fp8Path, bf16_blocks: tuple[int, ...], geometry: ChunkGeometry, device: torch.device, steps: int
) -> list[float]:
    """Seconds of each step after one that warms up. Weights in host memory, copied on a stream of their own."""
    model: Any = build_transformer(path, bf16_blocks).to_empty(device="cpu")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        draw(device, name, tensor)
    if device.type == "cuda":
        apply_group_offloading(
            model, onload_device=device, offload_type="block_level", num_blocks_per_group=1, use_stream=True
        )
    return [_step(model, geometry, device) for _ in range(steps + 1)][1:]


def _step(model: Any, geometry: ChunkGeometry, device: torch.device) -> float:
    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, device=device, dtype=torch.bfloat16)

    inputs = {
        "hidden_states": noise(geometry.video_tokens, 128),
        "audio_hidden_states": noise(geometry.audio_tokens, 128),
        "encoder_hidden_states": noise(1024, 4096),
        "audio_encoder_hidden_states": noise(1024, 2048),
        "timestep": torch.full((1,), 500.0, device=device),
        "sigma": torch.full((1,), 500.0, device=device),
    }
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    model(
        **inputs,
        num_frames=geometry.latent_frames,
        height=geometry.latent_height,
        width=geometry.latent_width,
        audio_num_frames=geometry.audio_tokens,
        fps=float(geometry.frame_rate),
        return_dict=False,
    )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
