"""What a user is told when a chunk has failed: what happened, and what they can do."""

from __future__ import annotations

import errno

_PROGRAMMING = (LookupError, TypeError, AttributeError, AssertionError, NameError)


def explained(error: BaseException) -> str:
    """A sentence. Errors that are raised on purpose have one; the others name a place in the code at best."""
    text = str(error).strip()
    if isinstance(error, MemoryError):
        why = f" ({text})" if text else ""
        return f"this machine ran out of memory{why}: lower the size or num_frames, or stop other programs"
    if type(error).__name__ == "OutOfMemoryError":
        # torch's own, told by its name: the page must answer before torch is imported.
        return f"the device ran out of memory: lower the size or num_frames. {text}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" at {error.filename}" if error.filename else ""
        return f"the disk is full{where}: free some space"
    if isinstance(error, _PROGRAMMING) or not text:
        said = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return f"an internal error ({said}): it is tried again, and the log has the details"
    return text
