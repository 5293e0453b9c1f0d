"""Which other model a LoRA may have been made for: guesses for error messages, from names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Collection

_BY_NAME: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "a text encoder",
        re.compile(
            r"lora_te\d*_|text_encoder|text_model|language_model|(?:^|\.)model\.layers\.\d+\.(?:self_attn|mlp)\."
        ),
    ),
    (
        "Flux",
        re.compile(
            r"single_transformer_blocks|double_blocks_?\.?\d+_?\.?(?:img|txt)_(?:attn|mlp)_?\.?(?:qkv|proj|0|2)"
        ),
    ),
    ("Qwen-Image", re.compile(r"transformer_blocks[._]\d+[._](?:img_mod|txt_mod|img_mlp|txt_mlp)")),
    ("Stable Diffusion 3", re.compile(r"joint_blocks|context_block")),
    (
        "Stable Diffusion or SDXL",
        re.compile(r"(?:down|up|input|output|mid|middle)_blocks?[._]"),
    ),
    ("Wan", re.compile(r"(?:^|[._])blocks[._]\d+[._](?:self_attn|cross_attn|ffn)")),
)
_TEXT_ENCODER = "a text encoder"


def family_by_name(keys: Collection[str]) -> str | None:
    """The model whose names most of these keys look like."""
    counts = {family: sum(bool(pattern.search(key)) for key in keys) for family, pattern in _BY_NAME}
    best = max(counts, key=lambda family: counts[family])
    return best if counts[best] * 2 > len(keys) else None


def is_text_encoder(family: str | None) -> bool:
    return family == _TEXT_ENCODER


def family_by_shape(module: str, expected: tuple[int, int], found: tuple[int, int]) -> str | None:
    """The model that has a layer (out, in) `found` where LTX-2.3 has `expected`.

    LTX-2.3 modulates 9 vectors per block, LTX-2.0 and LTX-Video 6. LTX-Video 2B is half as wide (2048).
    """
    if module.endswith("time_embed.linear") and found[0] * 9 == expected[0] * 6 and found[1] == expected[1]:
        return "LTX-2.0 (19B) or LTX-Video 13B, whose AdaLN is 6 times the width, not 9"
    if any(2 * have == want for have, want in zip(found, expected, strict=True)):
        return "LTX-Video 2B, which is half as wide"
    return None
