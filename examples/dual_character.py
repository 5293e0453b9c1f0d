"""Two people in one shot who stay who they are: both in one first frame, with the Dual Character LoRA.

    python examples/dual_character.py -o two.mp4
    python examples/dual_character.py -o two.mp4 --model models --left anna.jpg --right ben.jpg \\
        --width 1280 --height 704 --frames 121 --prompt "A woman in a red coat and a man in a green coat ..."

A frame takes one pinned picture, so the two portraits go side by side into one. Say who wears what each time, and
tell what is said without quotation marks: quoted speech becomes subtitles. The last 8 frames smear: they are left
out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from drawn import draw_face
from PIL import Image
from running import configured, generate, options_parser

from scope_ltx.catalog import load_catalog
from scope_ltx.compose import side_by_side
from scope_ltx.media_in.images import load_image

TAIL_FRAMES = 8
PROMPT = (
    "Two people face the camera in a studio. The person in the red shirt on the left greets the person in the "
    "green shirt on the right. The person in the green shirt nods."
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options_parser(__doc__, width=352, height=192, frames=97)
    parser.add_argument("--left", type=Path, help="portrait of the person on the left")
    parser.add_argument("--right", type=Path, help="portrait of the person on the right")
    parser.add_argument("--prompt", default=PROMPT)
    options = parser.parse_args(arguments)
    lora = load_catalog().find("dual-character")
    portrait = options.width // 2, options.height
    drawn = [
        np.asarray(draw_face(skin, shirt, *portrait)) for skin, shirt in (("#e0b090", "red"), ("#a07050", "green"))
    ]
    given = [
        load_image(path) if path else face for path, face in zip((options.left, options.right), drawn, strict=True)
    ]
    with tempfile.TemporaryDirectory() as made:
        both = Path(made, "both.png")
        Image.fromarray(side_by_side(given, options.height, options.width, "crop", gap=0)).save(both)
        config = configured(
            options,
            i2v_image=str(both),
            i2v_strength=lora.preparation.pin_strength,
            trim_tail=TAIL_FRAMES,
            loras=[{"path": lora.id}],
        )
        generate(options, config, options.prompt)


if __name__ == "__main__":
    main()
