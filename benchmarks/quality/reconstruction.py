"""What the autoencoders alone make of pictures and sounds: the best that a generated clip can look and sound like.

A pinned picture is encoded as the product encodes it, alone. How a frame is decoded depends on the frames after
it, for the decoder sees both ways in time. So a pinned frame is compared with frame 0 of the *true clip*'s
reconstruction, whose first picture is the pin; the reconstruction of the still by itself stands beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.maker import Frames, Samples
from scope_ltx.checkpoints.monolithic import open_part
from scope_ltx.manifest import ModelFiles
from scope_ltx.models.audio import load_audio_vae, load_vocoder
from scope_ltx.models.audio_encoder import AudioEncoder
from scope_ltx.models.components import compute_dtype
from scope_ltx.models.decode import AudioDecoder, VideoDecoder
from scope_ltx.models.video_encoder import VideoEncoder
from scope_ltx.models.video_vae import load_video_vae
from scope_ltx.sampling.geometry import audio_tokens_covering, latent_grid
from scope_ltx.sound_in.lengths import model_samples_for
from scope_ltx.sound_in.resample import to_model_rate
from scope_streaming.weights.graphs import EagerRunner

_SEEN_FRAMES = 17
"""Of a clip, to decode frame 0: still more change it by less than 69 dB, none but itself by 48."""


class Reconstruction:
    """The VAEs and the vocoder of a model directory, with the product's own encoders and decoders around them."""

    def __init__(self, model: Path, device: str) -> None:
        where, files = torch.device(device), ModelFiles.in_directory(model)
        dtype = compute_dtype(where)
        pictures, sounds = open_part(files.video_vae, "video_vae"), open_part(files.audio_vae, "audio_vae")
        video = load_video_vae(pictures, device=where, dtype=dtype)
        self._encoder, self._decoder = VideoEncoder(video), VideoDecoder(video, EagerRunner())
        audio = load_audio_vae(sounds, device=where, dtype=dtype)
        self._hearing = AudioEncoder(audio)
        self._speaking = AudioDecoder(audio, load_vocoder(sounds, device=where), EagerRunner())

    @torch.inference_mode()
    def sound(self, samples: Samples, count: int) -> Samples:
        """The first `count` samples at 48 kHz of (2, N), which must go on a little after them: the last token
        hears up to 60 ms more. Raises ValueError where it does not."""
        needed = model_samples_for(audio_tokens_covering(count))
        heard = to_model_rate(samples)[:, :needed]
        if heard.shape[1] < needed:
            raise ValueError(f"{count} samples at 48 kHz need {3 * needed} to be heard, got {samples.shape[1]}")
        latents = self._hearing.encode(torch.from_numpy(heard))
        made: Samples = self._speaking.decode(latents)[:, :count].cpu().numpy().copy()
        return made

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
        first: Frames = self.clip(np.concatenate([pixels[None], clip[1:_SEEN_FRAMES]]))[0]
        return first
