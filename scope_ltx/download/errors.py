"""What goes wrong while model files are fetched."""

from __future__ import annotations

from scope_ltx.errors import ScopeLtxError


class DownloadError(ScopeLtxError):
    """A model file cannot be had. Says which one, why, and what to do."""
