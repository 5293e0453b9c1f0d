"""Clips of the world as the transformer sees them: latents of picture and sound, and features of their captions.

All of it is made before training begins and stays on the device: 130 kB for a default clip, 100 kB for its text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scope_ltx.config import LTX2Config
from scope_ltx.models.mel import LogMel
from scope_ltx.models.small.sizes import AUDIO_LATENT_MELS, build_video_vae
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sound_in.lengths import model_samples_for
from training.audio_vae import build as build_audio_vae
from training.audio_vae import encode as encode_sound
from training.export import read_audio_vae
from training.sound_bank import to_model_rate
from training.text import CaptionEncoder
from training.video_vae import USED_CHANNELS
from training.video_vae import encode as encode_picture
from training.world.grammar import caption
from training.world.picture import render
from training.world.scene import Scene
from training.world.sound import render_sound

FPS = 24.0
SMALL = LTX2Config(height=256, width=256, num_frames=49, frame_rate=FPS)
FULL = LTX2Config(height=384, width=320, num_frames=129, frame_rate=FPS)
"""The size of the tests, and the default one."""

VOICE_TOKENS = 64
"""Of a voice clip in training: 2.5 s."""

CAPTIONS = 3
"""Of a clip: the canonical one and two paraphrases."""
_SENTENCE_SHARE = 0.25
"""Of the captions that are written as a sentence, with a capital and a full stop."""
_ENCODED_PIXELS = 64_000_000
"""In one batch of the encoder: 3.6 GB at its widest."""

Draw = Callable[[Sequence[Scene], LTX2Config, float], Tensor]
"""Scenes, geometry, and the time at which clips begin -> pictures (B, F, 3, H, W) in [-1, 1]."""
Hear = Callable[[Sequence[Scene]], Tensor]
"""Scenes -> samples (B, N) at 48 kHz."""


@dataclass(frozen=True)
class Clips:
    """N clips of one geometry. video: (N, Tv, 32), audio: (N, Ta, used), normalised latents in bfloat16.
    features: (N, CAPTIONS, SLOTS, FEATURES) and lengths (N, CAPTIONS) of their captions.

    Where a LoRA looks at something else as well: guide (N, R, 32), latents of a reference video, or voice
    (N, R, used), of a voice clip.
    """

    geometry: ChunkGeometry
    video: Tensor
    audio: Tensor
    features: Tensor
    lengths: Tensor
    guide: Tensor | None = None
    voice: Tensor | None = None

    def __len__(self) -> int:
        return len(self.video)

    def tensors(self) -> dict[str, Tensor]:
        """By name, those that are there."""
        named = {name: getattr(self, name) for name in TENSORS}
        return {name: value for name, value in named.items() if value is not None}


TENSORS = ("video", "audio", "features", "lengths", "guide", "voice")


class Encoders:
    """The frozen autoencoders and the text encoder on one device."""

    def __init__(self, video_vae: dict[str, Tensor], audio_vae: dict[str, Tensor], device: torch.device) -> None:
        self.device = device
        self._dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        video: Any = build_video_vae()
        video.load_state_dict(video_vae)
        self._video = video.to(device, self._dtype).eval().requires_grad_(False)
        if device.type == "cuda":
            self._video.to(memory_format=torch.channels_last_3d)
        audio: Any = build_audio_vae()
        audio.load_state_dict(audio_vae)
        self._audio = audio.to(device).eval().requires_grad_(False)
        self._mean, self._std = (
            video_vae[name][:USED_CHANNELS].view(-1, 1, 1, 1).to(device)
            for name in ("latents_mean", "latents_std")
        )
        self._log_mel = LogMel(device)
        self.audio_used = _used(audio_vae)
        self.captions = CaptionEncoder(device)

    @torch.no_grad()
    def pictures(self, clips: Tensor) -> Tensor:
        """(B, F, 3, H, W) in [-1, 1] -> (B, T, 32) bfloat16, normalised."""
        pixels = clips.transpose(1, 2).to(self._dtype)
        if self.device.type == "cuda":
            pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        latents = (encode_picture(self._video, pixels) - self._mean) / self._std
        return latents.flatten(2).transpose(1, 2).bfloat16()

    @torch.no_grad()
    def sounds(self, samples: Tensor, tokens: int) -> Tensor:
        """(B, N) at 48 kHz, long enough for `tokens` -> (B, tokens, audio_used) bfloat16, normalised."""
        mel = self._log_mel(to_model_rate(samples)[:, : model_samples_for(tokens)])
        latents = encode_sound(self._audio, mel[:, None].expand(-1, 2, -1, -1))
        values = latents.transpose(1, 2).flatten(2)[:, :tokens].float()
        normed: Tensor = (values - self._audio.latents_mean) / self._audio.latents_std
        return normed[..., : self.audio_used].bfloat16()


def audio_used_by(path: Path) -> int:
    """Of a sound token's 128 values, the first so many mean something to the audio VAE in a file."""
    return _used(read_audio_vae(path))


def _used(audio_vae: Mapping[str, Tensor]) -> int:
    """Channels that the decoder does not read carry nothing. Raises ValueError unless they come last."""
    read = audio_vae["decoder.conv_in.conv.weight"].abs().sum((0, 2, 3)) > 0
    used = int(read.sum())
    if not bool(read[:used].all()):
        raise ValueError("the audio VAE's unused channels must come last")
    return AUDIO_LATENT_MELS * used


def scenes_to_clips(
    encoders: Encoders,
    config: LTX2Config,
    scenes: Sequence[Scene],
    captions: Sequence[Sequence[str]],
    *,
    start_s: float = 0.0,
    guide: Draw | None = None,
    voice: Hear | None = None,
) -> Clips:
    """Render and encode. captions: CAPTIONS of each scene. start_s: where in their scenes the clips begin.
    guide, voice: what `Clips.guide` and `Clips.voice` (VOICE_TOKENS long) are encoded from."""
    geometry = ChunkGeometry.of(config)
    per_batch = max(1, _ENCODED_PIXELS // geometry.pixels)
    video, audio, guides, voices = [], [], [], []
    for first in range(0, len(scenes), per_batch):
        part = scenes[first : first + per_batch]
        clips = render(part, config.height, config.width, config.num_frames, FPS, encoders.device, start_s=start_s)
        video.append(encoders.pictures(clips))
        sound = render_sound(part, samples_for(geometry.audio_tokens), FPS, encoders.device, start_s=start_s)
        audio.append(encoders.sounds(sound[:, 0], geometry.audio_tokens))
        if guide is not None:
            guides.append(encoders.pictures(guide(part, config, start_s)))
        if voice is not None:
            voices.append(encoders.sounds(voice(part), VOICE_TOKENS))
    features, lengths = encoders.captions.features([text for texts in captions for text in texts])
    return Clips(
        geometry,
        torch.cat(video),
        torch.cat(audio),
        features.view(-1, CAPTIONS, *features.shape[1:]),
        lengths.view(-1, CAPTIONS),
        torch.cat(guides) if guides else None,
        torch.cat(voices) if voices else None,
    )


def samples_for(tokens: int) -> int:
    """Samples at 48 kHz that `Encoders.sounds` wants: 10 ms more than the tokens hear."""
    return 3 * model_samples_for(tokens) + 480


def captions_of(scene: Scene, rng: random.Random, **named: bool) -> list[str]:
    """CAPTIONS texts of one scene; `named` goes to the grammar."""
    texts = [caption(scene, None if index == 0 else rng, **named) for index in range(CAPTIONS)]
    return [as_sentence(text) if rng.random() < _SENTENCE_SHARE else text for text in texts]


def as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
