"""What a command that computes on the CPU does with freed memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys, psutil, torch
from scope_ltx.freed_memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = psutil.Process().memory_info().rss
torch.ones(2**24)
print(psutil.Process().memory_info().rss - before)
"""


def held_nbytes(how: str) -> int:
    """Resident memory that is left of a buffer of 64 MiB after it was freed."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is told by a call that only glibc has")
def test_freed_memory_stays_with_the_process_only_where_it_was_asked_to() -> None:
    assert held_nbytes("as it was") < 2**24
    assert held_nbytes("kept") > 2**25
