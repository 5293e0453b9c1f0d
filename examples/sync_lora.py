"""An edit of the first frame, carried through a whole clip in step with its motion (Sync-LoRA, two stages).

    python examples/sync_lora.py -o edited.mp4
    python examples/sync_lora.py -o edited.mp4 --model models --dev --clip talk.mp4 --edit first_frame.png \\
        --width 512 --height 512 --frames 81 --frame-rate 25

The clip is the reference, its edited first frame is pinned, and the prompt is exactly 3d1t. Frames and frame rate
must be those of the clip, width and height multiples of 64. The LoRA was trained on the dev checkpoint with the
distillation LoRA on top: --dev adds that. Without --clip and --edit a yellow disc goes round, and is made red.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from drawn import moving_shape, write_clip
from PIL import Image
from running import configured, generate, options_parser

PROMPT = "3d1t"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options_parser(__doc__, width=256, height=256, frames=81)
    parser.add_argument("--clip", type=Path, help="the video to edit")
    parser.add_argument("--edit", type=Path, help="its first frame, edited")
    parser.add_argument("--frame-rate", type=int, default=25)
    parser.add_argument(
        "--dev", action="store_true", help="the model is the dev checkpoint: stack the distillation LoRA"
    )
    options = parser.parse_args(arguments)
    size = options.width, options.height
    with tempfile.TemporaryDirectory() as made:
        clip, edit = options.clip, options.edit
        if clip is None:
            frames = (moving_shape(index, *size) for index in range(options.frames))
            clip = write_clip(Path(made, "clip.mp4"), frames, Fraction(options.frame_rate))
        if edit is None:
            edit = Path(made, "edit.png")
            Image.fromarray(moving_shape(0, *size, colour="#d02020")).save(edit)
        distillation = [{"path": "distilled-lora", "strength": 1.0}] if options.dev else []
        config = configured(
            options,
            frame_rate=float(options.frame_rate),
            reference_video=str(clip),
            i2v_image=str(edit),
            i2v_strength=1.0,
            two_stage=True,
            loras=[{"path": "sync"}, *distillation],
        )
        generate(options, config, PROMPT)


if __name__ == "__main__":
    main()
