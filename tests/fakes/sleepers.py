"""Sleeps on each processor, 20 ms at a time, and says when it was woken late. Run by `machine`, as a process that
imports little."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

BEAT_S = 0.02
LATE_S = 0.01
MOST_PROCESSORS = 8


def sleep_on(
    processor: int | None, ready: threading.Barrier, told: threading.Event, saying: threading.Lock
) -> None:
    """Until told to end, and then to the end of its sleep. Writes when it was to wake, and how late that was."""
    if processor is not None:
        os.sched_setaffinity(0, {processor})  # of this thread
    ready.wait()
    now = time.monotonic()
    while True:
        # From one reading of the clock to the next: a delay between two sleeps counts as well.
        asked = now + BEAT_S
        time.sleep(BEAT_S)
        now = time.monotonic()
        if now - asked > LATE_S:
            with saying:
                sys.stdout.write(f"{asked} {now - asked}\n")
                sys.stdout.flush()
        if told.is_set():
            return


def main() -> None:
    told, saying = threading.Event(), threading.Lock()
    # Blocked in every thread and waited for in this one: a handler runs only when this thread wakes.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # A host takes its processors away one by one: a sleeper on another one sees nothing of it.
    known = sorted(os.sched_getaffinity(0))[:MOST_PROCESSORS] if hasattr(os, "sched_getaffinity") else [None]
    ready = threading.Barrier(len(known) + 1)
    sleepers = [threading.Thread(target=sleep_on, args=(one, ready, told, saying)) for one in known]
    for sleeper in sleepers:
        sleeper.start()
    with saying:  # the first line is this one
        ready.wait()
        print(flush=True)  # noqa: T201 - it watches from now on
    signal.sigwait({signal.SIGTERM})
    told.set()
    for sleeper in sleepers:
        sleeper.join()


if __name__ == "__main__":
    main()
