"""Names in the published files, and names in the modules: one reversible map per part of the model.

Each part of LTX-2.3 is stored under names of its own, and each `diffusers` or `transformers` module
uses others. A `KeyMap` knows both. Nothing here reads a file or knows a shape; what a name that no
map understands means (an error) is decided by the loader.

    part           files it lives in                         map
    transformer    transformer file                          TRANSFORMER
    connectors     transformer file and projection file      CONNECTORS
    video VAE      video VAE file                            VIDEO_VAE
    audio VAE      audio file                                AUDIO_VAE
    vocoder        audio file                                VOCODER
    text encoder   text encoder file                         TEXT_ENCODER

The companions of an FP8 weight (`weight_scale`, `input_scale`, `comfy_quant`) follow their layer,
because renames act on whole dotted parts of a name and never on its last part alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DIFFUSION_PREFIX = "model.diffusion_model"

SPIECE_MODEL = "spiece_model"
"""Key of the SentencePiece model, stored as bytes in the text encoder file."""


def _under(key: str, path: str) -> bool:
    return key == path or key.startswith(path + ".")


def _moved(key: str, old: str, new: str) -> str:
    """`key` with its leading path `old` replaced by `new`; an empty path stands for the root."""
    rest = key[len(old) :].removeprefix(".") if old else key
    return ".".join(part for part in (new, rest) if part)


@dataclass(frozen=True)
class KeyMap:
    """Renames between a published file and a module, exact in both directions.

    roots     (published path, module path): the first that a name lies under moves it. The first
              entry whose module path matches is also the way back.
    parts     {published: module}: runs of whole dotted parts, replaced wherever they stand, in one pass
              (so that no replacement can rename the outcome of another).
    aliases   (published path, canonical published path): other spellings that are accepted on reading.
    elsewhere published paths that belong to another part of the model, or are not needed.
    """

    name: str
    roots: tuple[tuple[str, str], ...]
    parts: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[tuple[str, str], ...] = ()
    elsewhere: tuple[str, ...] = ()

    def to_module(self, published_key: str) -> str | None:
        """The module's name for a key of the file.

        None if the key belongs to another part of the model, or is deliberately not used. A key that
        nothing is known of comes back under a name that the module does not have.
        """
        if any(_under(published_key, path) for path in self.elsewhere):
            return None
        key = published_key
        for alias, canonical in self.aliases:
            if _under(key, alias):
                key = _moved(key, alias, canonical)
                break
        for published, module in self.roots:
            if _under(key, published) or not published:
                return _renamed(_moved(key, published, module), self.parts)
        return published_key

    def to_published(self, module_key: str) -> str:
        """The file's name, with its prefix, for a name of the module.

        Raises ValueError for a name that no root of this map covers.
        """
        for published, module in self.roots:
            if _under(module_key, module) or not module:
                back = {ours: theirs for theirs, ours in self.parts.items()}
                return _moved(_renamed(module_key, back, keep=module), module, published)
        raise ValueError(f"expected a name of the {self.name}, got {module_key!r}")


def _renamed(key: str, parts: Mapping[str, str], *, keep: str = "") -> str:
    """`key` with every run of parts replaced, except within the leading path `keep`."""
    if not parts:
        return key
    runs = "|".join(re.escape(run) for run in sorted(parts, key=len, reverse=True))
    head, tail = (keep, key[len(keep) :]) if keep else ("", "." + key)
    replaced = re.sub(rf"(?<=\.)(?:{runs})(?=\.|$)", lambda found: parts[found.group()], tail)
    return head + (replaced if keep else replaced[1:])


def _diffusion(names: Iterable[str]) -> tuple[str, ...]:
    """Paths with and without the prefix: both spellings of a transformer file are in use."""
    bare = tuple(names)
    return bare + tuple(f"{DIFFUSION_PREFIX}.{name}" for name in bare)


_CONNECTOR_ROOTS = ("video_embeddings_connector", "audio_embeddings_connector")
_OTHER_FILES = ("vae", "audio_vae", "vocoder")

TRANSFORMER = KeyMap(
    name="transformer",
    roots=((DIFFUSION_PREFIX, ""), ("", "")),
    parts={
        "patchify_proj": "proj_in",
        "audio_patchify_proj": "audio_proj_in",
        "adaln_single": "time_embed",
        "audio_adaln_single": "audio_time_embed",
        "prompt_adaln_single": "prompt_adaln",
        "audio_prompt_adaln_single": "audio_prompt_adaln",
        "av_ca_video_scale_shift_adaln_single": "av_cross_attn_video_scale_shift",
        "av_ca_audio_scale_shift_adaln_single": "av_cross_attn_audio_scale_shift",
        "av_ca_a2v_gate_adaln_single": "av_cross_attn_video_a2v_gate",
        "av_ca_v2a_gate_adaln_single": "av_cross_attn_audio_v2a_gate",
        "scale_shift_table_a2v_ca_video": "video_a2v_cross_attn_scale_shift_table",
        "scale_shift_table_a2v_ca_audio": "audio_a2v_cross_attn_scale_shift_table",
        "q_norm": "norm_q",
        "k_norm": "norm_k",
    },
    elsewhere=(*_diffusion(_CONNECTOR_ROOTS), *_OTHER_FILES, "text_embedding_projection"),
)

CONNECTORS = KeyMap(
    name="text connectors",
    roots=(
        (f"{DIFFUSION_PREFIX}.video_embeddings_connector", "video_connector"),
        (f"{DIFFUSION_PREFIX}.audio_embeddings_connector", "audio_connector"),
        ("text_embedding_projection.video_aggregate_embed", "video_text_proj_in"),
        ("text_embedding_projection.audio_aggregate_embed", "audio_text_proj_in"),
    ),
    parts={"transformer_1d_blocks": "transformer_blocks", "q_norm": "norm_q", "k_norm": "norm_k"},
    aliases=tuple((name, f"{DIFFUSION_PREFIX}.{name}") for name in _CONNECTOR_ROOTS),
    elsewhere=(
        *_diffusion(
            (
                *(part for part in TRANSFORMER.parts if "adaln" in part or "patchify" in part),
                "proj_out",
                "audio_proj_out",
                "scale_shift_table",
                "audio_scale_shift_table",
                "transformer_blocks",
            )
        ),
        *_OTHER_FILES,
    ),
)

VAE_STAGES = 4
"""Resolution stages of the video VAE; each is a group of residual blocks and one resampler."""


def _encoder_roots() -> tuple[tuple[str, str], ...]:
    """The file counts blocks and downsamplers alike; the module puts each downsampler in its block."""
    roots = []
    for stage in range(VAE_STAGES):
        block = f"encoder.down_blocks.{stage}"
        roots.append((f"encoder.down_blocks.{2 * stage + 1}", f"{block}.downsamplers.0"))
        roots.append((f"encoder.down_blocks.{2 * stage}", block))
    return (*roots, (f"encoder.down_blocks.{2 * VAE_STAGES}", "encoder.mid_block"))


def _decoder_roots() -> tuple[tuple[str, str], ...]:
    """As the encoder, but the decoder starts with the middle block and upsamples first."""
    roots = [("decoder.up_blocks.0", "decoder.mid_block")]
    for stage in range(VAE_STAGES):
        block = f"decoder.up_blocks.{stage}"
        roots.append((f"decoder.up_blocks.{2 * stage + 1}", f"{block}.upsamplers.0"))
        roots.append((f"decoder.up_blocks.{2 * stage + 2}", block))
    return tuple(roots)


def _unused_statistics(prefix: str) -> tuple[str, ...]:
    """Statistics that the training code stores beside the two that normalise a latent."""
    names = ("channel", "mean-of-stds", "mean-of-stds_over_std-of-means")
    return tuple(f"{prefix}per_channel_statistics.{name}" for name in names)


VIDEO_VAE = KeyMap(
    name="video VAE",
    roots=(
        ("per_channel_statistics.mean-of-means", "latents_mean"),
        ("per_channel_statistics.std-of-means", "latents_std"),
        *_encoder_roots(),
        *_decoder_roots(),
        ("", ""),
    ),
    parts={"res_blocks": "resnets"},
    aliases=(("vae", ""),),
    elsewhere=(
        *_unused_statistics(""),
        *_unused_statistics("vae."),
        "audio_vae",
        "vocoder",
        "model",
        "text_embedding_projection",
    ),
)

AUDIO_VAE = KeyMap(
    name="audio VAE",
    roots=(
        ("audio_vae.per_channel_statistics.mean-of-means", "latents_mean"),
        ("audio_vae.per_channel_statistics.std-of-means", "latents_std"),
        ("audio_vae", ""),
    ),
    elsewhere=(
        *_unused_statistics("audio_vae."),
        "vae",
        "vocoder",
        "model",
        "text_embedding_projection",
    ),
)

VOCODER = KeyMap(
    name="vocoder",
    roots=(("vocoder", ""),),
    parts={
        "ups": "upsamplers",
        "resblocks": "resnets",
        "conv_pre": "conv_in",
        "conv_post": "conv_out",
        "act_post": "act_out",
        "downsample.lowpass": "downsample",
    },
    # The resampler's filter is a fixed window: computed, whether or not a file repeats it.
    elsewhere=("vocoder.resampler", "vae", "audio_vae", "model", "text_embedding_projection"),
)

TEXT_ENCODER = KeyMap(
    name="text encoder",
    roots=(("model", ""),),
    # A prompt is text only: the picture tower is not loaded. The output head is tied to the embedding.
    elsewhere=("vision_model", "multi_modal_projector", "lm_head", SPIECE_MODEL),
)
