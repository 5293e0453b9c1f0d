"""The error of a LoRA file."""

from __future__ import annotations

from scope_ltx.errors import CheckpointError


class LoraError(CheckpointError):
    """A LoRA file cannot be used: the one error that opening, reading and merging a file raise."""
