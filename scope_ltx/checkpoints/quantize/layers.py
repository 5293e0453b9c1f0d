"""Which layers of a transformer are stored in FP8.

Lightricks' own FP8 file keeps the first two and the last two of its 48 blocks in bfloat16, and all of the 44
others' linear layers are FP8; the packagers' distilled file is of the size that four bfloat16 blocks give, and
keeps the gates' layers in bfloat16 as well. Both keep everything outside the blocks. Gates are 32 rows each:
0.15 % of a block's bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from scope_ltx.checkpoints.keys import TRANSFORMER
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError

KEPT_AT_EACH_END = 2
QUANTIZABLE = ("BF16", "F16", "F32")
FP8 = "F8_E4M3"

_BLOCK_WEIGHT = re.compile(r"transformer_blocks\.(\d+)\.(.+)\.weight")
_NEVER = "to_gate_logits"

_NOT_A_TRANSFORMER = "Name a complete checkpoint, or a transformer file, in bfloat16"


def block_weights(file: CheckpointFile) -> dict[str, int]:
    """{published key: block} of the linear layers' weights inside the transformer's blocks, gates left out."""
    found = {}
    for key, shape in file.shapes.items():
        match = _BLOCK_WEIGHT.fullmatch(TRANSFORMER.to_module(key) or "")
        if match and len(shape) == 2 and not match[2].endswith(_NEVER):
            found[key] = int(match[1])
    return found


def holds_fp8(file: CheckpointFile) -> bool:
    """Whether any weight inside the transformer's blocks is FP8 already."""
    return any(file.dtypes[key] == FP8 for key in block_weights(file))


def fp8_layers(file: CheckpointFile, keep_blocks: Collection[int] | None = None) -> tuple[str, ...]:
    """Published names of the layers to store in FP8.

    keep_blocks: blocks that stay as they are, by default the first two and the last two. Raises CheckpointError
    for a file that holds no transformer, is FP8 already, or of a type that cannot be quantized; ValueError for
    blocks that the file does not have, and when no block would be left to quantize.
    """
    weights = block_weights(file)
    if not weights:
        raise CheckpointError(
            file.path, "holds no transformer blocks: there is nothing to quantize", advice=_NOT_A_TRANSFORMER
        )
    already = [key for key in weights if file.dtypes[key] == FP8]
    if already:
        advice = "Use it as it is: FP8 files load without quantizing"
        raise CheckpointError(file.path, "is in FP8 already", keys=already, advice=advice)
    wrong = [f"{key} {file.dtypes[key]}" for key in weights if file.dtypes[key] not in QUANTIZABLE]
    if wrong:
        expected = f"has weights of a type that cannot be quantized, expected {', '.join(QUANTIZABLE)}"
        raise CheckpointError(file.path, expected, keys=wrong, advice=_NOT_A_TRANSFORMER)
    kept = _kept(max(weights.values()) + 1, keep_blocks)
    return tuple(key.removesuffix(".weight") for key, block in weights.items() if block not in kept)


def _kept(blocks: int, keep_blocks: Collection[int] | None) -> frozenset[int]:
    last = blocks - 1
    if keep_blocks is None:
        ends = range(KEPT_AT_EACH_END)
        kept = frozenset(block for end in ends for block in (end, last - end))
    else:
        kept = frozenset(keep_blocks)
    unknown = sorted(block for block in kept if not 0 <= block <= last)
    if unknown:
        listed = ", ".join(map(str, unknown))
        raise ValueError(f"blocks to keep must be within 0..{last}, got {listed}")
    if len(kept) == blocks:
        raise ValueError(f"keeping {len(kept)} of {blocks} blocks leaves none to quantize: name fewer to keep")
    return kept
