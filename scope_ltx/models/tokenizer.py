"""The tokenizer embedded in the text encoder file.

Read with the `sentencepiece` library itself: the tokenizer classes of transformers 4 and 5 disagree on this
file's extra tokens.
"""

from __future__ import annotations

from typing import Any

import sentencepiece

from scope_ltx.checkpoints.keys import SPIECE_MODEL
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError

BOS_ID = 2
MAX_TOKENS = 1024
"""Length of the text context; longer prompts are cut."""

_ADVICE = "Use the text encoder file that plugin.toml names: its tokenizer is a tensor of bytes inside it"


class Tokenizer:
    """Text -> token ids. Safe to share between threads: encoding changes nothing."""

    def __init__(self, model_proto: bytes) -> None:
        """`model_proto` is a SentencePiece model. Raises RuntimeError if it is not."""
        self._processor: Any = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model_proto)

    @property
    def vocab_size(self) -> int:
        return int(self._processor.GetPieceSize())

    def encode(self, text: str) -> list[int]:
        """Token ids of the stripped text after BOS, at most 1,024 in all; no end token, no template."""
        ids: list[int] = self._processor.EncodeAsIds(text.strip())
        return [BOS_ID, *ids][:MAX_TOKENS]


def load_tokenizer(file: CheckpointFile) -> Tokenizer:
    """Raises CheckpointError if the file has no tokenizer in it, or a damaged one."""
    if SPIECE_MODEL not in file.keys:
        raise CheckpointError(file.path, "holds no tokenizer", keys=[SPIECE_MODEL], advice=_ADVICE)
    if file.dtypes[SPIECE_MODEL] not in ("U8", "I8"):
        problem = f"its tokenizer is of type {file.dtypes[SPIECE_MODEL]}, expected bytes (U8)"
        raise CheckpointError(file.path, problem, keys=[SPIECE_MODEL], advice=_ADVICE)
    proto = file.tensor(SPIECE_MODEL).numpy().tobytes()
    try:
        return Tokenizer(proto)
    except RuntimeError as error:
        problem = f"its tokenizer is not a SentencePiece model: {error}"
        raise CheckpointError(file.path, problem, keys=[SPIECE_MODEL], advice=_ADVICE) from error
