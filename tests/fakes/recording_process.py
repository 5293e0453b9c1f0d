"""Writes so many seconds of a recording in a process of its own, says so, and waits to be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from scope_ltx.hosts.live.recording.files import RecordingFiles
from tests.fakes.coded_stream import coded_stream


def main(path: Path, seconds: float) -> None:
    files = RecordingFiles(path)
    for packet in coded_stream(seconds):
        files.write(packet)
    sys.stdout.write("written\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
