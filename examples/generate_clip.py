"""Two chunks of the small model as a clip. Run: python examples/generate_clip.py out.mp4 "a red ball"

Give a third argument, a directory with the published model files, to use the real model.
"""

import sys
from contextlib import closing
from pathlib import Path

import platformdirs

from scope_ltx.clip import ClipWriter
from scope_ltx.config import LTX2Config
from scope_ltx.models.small import ensure_small_model
from scope_ltx.pipeline import load_pipeline
from scope_ltx.session import Session
from scope_streaming.media.timeline import exact_frame_rate

SAMPLE_RATE = 48_000


def generate(output: Path, prompt: str, model_dir: Path, config: LTX2Config) -> None:
    with closing(load_pipeline(model_dir, "auto")) as pipeline:
        session = Session(pipeline, config, prompt)
        rate = exact_frame_rate(config.frame_rate)
        with ClipWriter(output, config.width, config.height, rate, SAMPLE_RATE) as clip:
            for _ in range(2):
                segment = session.next_segment()
                clip.write(segment)
                print(f"segment {segment.index}: {segment.times.seconds:.3f} s of picture and sound")


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        raise SystemExit(__doc__)
    small = Path(platformdirs.user_cache_dir("scope-ltx"))
    directory = Path(sys.argv[3]) if len(sys.argv) == 4 else ensure_small_model(small)
    generate(Path(sys.argv[1]), sys.argv[2], directory, LTX2Config(base_seed=7))
