"""What lives when the model is loaded is not walked over again. In a process of its own: it cannot be undone."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from scope_ltx.hosts.live.operations.garbage import keep_all_there_is

class Node:
    pass

def cycle():
    node = Node()
    node.itself = node
    return weakref.ref(node)

before = cycle()
kept = Node()
keep_all_there_is()
after = cycle()
print(before() is None, gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000)
gc.collect()
print(after() is None)
"""


def test_only_what_comes_later_is_collected_from_then_on() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True"] * 4
