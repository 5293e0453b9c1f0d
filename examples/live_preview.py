"""The live preview on this machine: a server of its own, watched for a while and saved as it arrived.

    python examples/live_preview.py -o preview.mp4
    python examples/live_preview.py -o preview.mp4 --model models --seconds 60 --prompt "A harbour at dawn."

Open the printed address in a browser meanwhile to see the page. To watch a server that runs already, use
watch_stream.py with its address.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from watch_stream import watch

SERVE = "from scope_ltx.cli import main; main()"


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """`scope-ltx serve` on a free port, ended with the block; gives its address."""
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            words = next((line.split() for line in process.stdout if "http://" in line), [])
            address = next((word for word in words if word.startswith("http://")), None)
            if address is None:
                raise SystemExit("the server did not start: its message is above")
            yield address
        finally:
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", required=True, help="the .mp4 to write")
    parser.add_argument("--model", default="small", help="'small', or a directory with the published files")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--prompt", help="what to show and sound like; without it, something the model can draw")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the stream"
    )
    options = parser.parse_args(arguments)
    parameters = [part for assignment in options.set for part in ("--set", assignment)]
    if options.prompt is not None:
        parameters += ["--prompt", options.prompt]
    with server("--model", options.model, *parameters) as address:
        asyncio.run(watch(address, options.output, options.seconds))


if __name__ == "__main__":
    main()
