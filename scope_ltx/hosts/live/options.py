"""How the live host is set up beside the model: who may use it, and which directories it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MAX_VIEWERS = 8
"""Each takes about 1.2 % of a core and 3.6 Mb/s at 1280x704; a preview is no broadcast service."""


@dataclass(frozen=True)
class HostOptions:
    """token: None: nobody is asked for one. origins: of pages elsewhere that may use the host.

    upload_dir, record_dir: None: the user's cache and video directories. media_dirs: what requests may name files
    in, beside uploads and the model's LoRAs. base_path: of this server behind a front door, such as /pods/one.
    """

    token: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    max_viewers: int = MAX_VIEWERS
    upload_dir: Path | None = None
    media_dirs: tuple[Path, ...] = ()
    record_dir: Path | None = None
    base_path: str = ""


DEFAULT_HOST = HostOptions()
