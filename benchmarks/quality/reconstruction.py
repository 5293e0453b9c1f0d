"""What the video VAE alone makes of pictures: the best that a pinned frame can become.

A pinned picture is encoded as the product encodes it, alone. How a frame is decoded depends on the frames after
it, for the decoder sees both ways in time. So a pinned frame is compared with frame 0 of the *true clip*'s
reconstruction, whose first picture is the pin; the reconstruction of the still by itself stands beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.maker import Frames
from scope_ltx.checkpoints.monolithic import open_part
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.components import compute_dtype
from scope_ltx.models.decode import VideoDecoder
from scope_ltx.models.video_encoder import VideoEncoder
from scope_ltx.models.video_vae import load_video_vae
from scope_ltx.sampling.geometry import latent_grid
from scope_streaming.weights.graphs import EagerRunner


class Reconstruction:
    """The video VAE of a model directory, with the product's own encoder and decoder around it."""

    def __init__(self, model: Path, device: str) -> None:
        where = torch.device(device)
        file = open_part(ModelFiles.in_directory(model).video_vae, "video_vae")
        vae = load_video_vae(file, device=where, dtype=compute_dtype(where))
        self._encoder, self._decoder = VideoEncoder(vae), VideoDecoder(vae, EagerRunner())

    @torch.inference_mode()
    def clip(self, frames: Frames) -> Frames:
        """(8 K + 1, H, W, 3) encoded and decoded."""
        grid = latent_grid(len(frames), frames.shape[1], frames.shape[2])
        decoded: Tensor = self._decoder.decode(self._encoder.encode(torch.from_numpy(frames)), grid)
        made: Frames = decoded.cpu().numpy().copy()
        return made

    def still(self, pixels: Frames) -> Frames:
        """(H, W, 3), a clip of one frame."""
        first: Frames = self.clip(pixels[None])[0]
        return first

    def begins_with(self, pixels: Frames, clip: Frames) -> Frames:
        """Frame 0 of a clip whose first frame is `pixels` (H, W, 3)."""
        first: Frames = self.clip(np.concatenate([pixels[None], clip[1:]]))[0]
        return first
