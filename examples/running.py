"""What the examples share: their options, and a configuration turned into a clip."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from scope_ltx.backend import LibraryBackend, SegmentSource
from scope_ltx.config import LTX2Config
from scope_ltx.generate import Destination, generate_clip
from scope_ltx.pipeline import load_pipeline
from scope_ltx.request import Generator
from scope_ltx.session import Session

OpenSource = Callable[[Generator], SegmentSource]


def options_parser(description: str | None, *, width: int, height: int, frames: int) -> argparse.ArgumentParser:
    """-o, --model, --device, --seed, and the size and length, whose defaults suit two CPU cores."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .mp4 to write")
    parser.add_argument("--dump-npz", type=Path, help="also write frames and samples unencoded")
    parser.add_argument("--model", default="small", help="'small', or a directory with the published files")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--width", type=int, default=width)
    parser.add_argument("--height", type=int, default=height)
    parser.add_argument("--frames", type=int, default=frames, help="frames of a chunk: 8K + 1")
    parser.add_argument("--chunks", type=int, default=1)
    return parser


def configured(options: argparse.Namespace, **mode: Any) -> LTX2Config:
    """The options' size, length and seed, and the parameters of a mode."""
    return LTX2Config(
        width=options.width, height=options.height, num_frames=options.frames, base_seed=options.seed, **mode
    )


def generate(options: argparse.Namespace, config: LTX2Config, source: str | OpenSource) -> None:
    """Write the clip: what `scope-ltx generate` does. `source` is the prompt of a session, or opens a stream."""
    destination = Destination.checked(options.output, options.dump_npz)
    directory = LibraryBackend().model_directory(options.model)
    with closing(load_pipeline(directory, options.device, first=config)) as pipeline:
        stream = Session(pipeline, config, source) if isinstance(source, str) else source(pipeline)
        print(generate_clip(stream, config, options.chunks, destination))
        stream.close_sources()
