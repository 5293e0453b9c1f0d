"""What this version can make of a configuration. Imports no torch: hosts ask before they accept a change."""

from __future__ import annotations

from scope_ltx.config import LTX2Config
from scope_ltx.errors import UnsupportedError


def unsupported(config: LTX2Config) -> dict[str, str]:
    """Parameters that ask for a mode which is not built, each with a sentence for the user."""
    problems = {}
    if config.i2v_image is not None and config.i2v_strength > 0:
        problems["i2v_image"] = "i2v_image is not supported by this version: clear it, or set i2v_strength to 0"
    if config.audio_input is not None:
        problems["audio_input"] = "audio_input is not supported by this version: clear it"
    return problems


def refuse_unsupported(config: LTX2Config) -> None:
    """Raises UnsupportedError with every sentence."""
    problems = unsupported(config)
    if problems:
        raise UnsupportedError("; ".join(problems.values()))
