"""Sizes as the hub's pages have them."""

from __future__ import annotations


def size_text(nbytes: int | None) -> str:
    """In decimal units; "?" where nobody knows it."""
    if nbytes is None:
        return "?"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes} B"
