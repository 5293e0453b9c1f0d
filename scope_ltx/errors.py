"""The errors a user meets.

    ScopeLtxError
      CheckpointError     a model file is missing, damaged, or not what its name says
      UnsupportedError    a valid request that this build or this model cannot serve
      OutOfMemory         a chunk did not fit into memory, even after the model had made room
      NotFiniteError      the model made NaN or infinity instead of a picture or sound
      GenerationCancelled a chunk was abandoned on request; nothing was lost that was promised

Bad parameters are pydantic's `ValidationError` (a `ValueError`): they name the field themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ScopeLtxError(Exception):
    """Base of every error that this product raises on purpose; the text is fit for a user."""

    def __str__(self) -> str:
        # Python keeps bytes of a file's name that are no text as lone surrogates, which no log can write.
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class CheckpointError(ScopeLtxError):
    """A model file cannot be used. Says which file, what is wrong, which keys, and what to do."""

    SHOWN = 5

    def __init__(self, path: Path, problem: str, *, keys: Sequence[str] = (), advice: str) -> None:
        self.path = path
        self.problem = problem
        self.keys = tuple(keys)
        self.advice = advice
        listed = ""
        if self.keys:
            more = len(self.keys) - self.SHOWN
            listed = ": " + ", ".join(self.keys[: self.SHOWN]) + (f" and {more} more" if more > 0 else "")
        super().__init__(f"{path}: {problem}{listed}. {advice}")


class UnsupportedError(ScopeLtxError):
    """The request is valid, but this build or the loaded model has no way to do it."""


class OutOfMemory(ScopeLtxError):
    """A chunk did not fit into memory. The next one may be smaller."""


class NotFiniteError(ScopeLtxError):
    """A chunk's numbers are NaN or infinite. Nothing of it can be shown."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the chunk's {what} came out as NaN or infinity, so it is not shown. A LoRA strength or a guidance "
            "scale that is too high is the usual cause: lower it"
        )


class GenerationCancelled(ScopeLtxError):
    """The chunk was abandoned because its session ended or asked for it."""
