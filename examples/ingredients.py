"""A character, a prop and a place from one reference sheet, kept as they are in a new clip (the Ingredients LoRA).

    python examples/ingredients.py -o clip.mp4
    python examples/ingredients.py -o clip.mp4 --model models --sheet sheet.png --width 768 --height 448 \\
        --shows "A woman in a blue shirt; a red ball; a meadow." --happens "She throws the ball across the meadow."

The sheet has one panel per element on black, without text; it is looped to the clip's length, at least 121 frames.
The LoRA was made for the dev checkpoint: --dev samples as its card asks, in 30 guided steps. A distilled
checkpoint needs 8 without guidance, which is also what the small model does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drawn import draw_sheet
from running import configured, generate, options_parser

from scope_ltx.catalog import load_catalog
from scope_ltx.prompts.two_part import TwoPartPrompt


def dev_sampling() -> dict[str, Any]:
    """What the LoRA's card asks for on the dev checkpoint, from the catalog."""
    lora = load_catalog().find("ingredients")
    sampling = lora.sampling
    assert sampling is not None
    return {
        "schedule": "dev",
        "num_steps": sampling.num_steps,
        "cfg_scale": sampling.guidance_scale,
        "audio_cfg_scale": sampling.guidance_scale,
        "stg_scale": sampling.stg_scale,
        "stg_blocks": (sampling.stg_block,),
        "stg_mode": "video",
        "negative_prompt": lora.prompt.negative,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options_parser(__doc__, width=384, height=224, frames=121)
    parser.add_argument("--sheet", type=Path, help="the reference sheet, a picture")
    parser.add_argument(
        "--shows", default="A person in a blue shirt; a red ball; a green meadow under a blue sky."
    )
    parser.add_argument("--happens", default="The person throws the red ball across the green meadow.")
    parser.add_argument("--strength", type=float, help="of the LoRA; 1.4 unless given, 1.0 to begin with")
    parser.add_argument("--dev", action="store_true", help="the model is the dev checkpoint")
    options = parser.parse_args(arguments)
    prompt = TwoPartPrompt(reference_sheet=options.shows, generated_video=options.happens)
    with tempfile.TemporaryDirectory() as made:
        sheet = options.sheet
        if sheet is None:
            sheet = Path(made, "sheet.png")
            draw_sheet(options.width, options.height).save(sheet)
        config = configured(
            options,
            reference_video=str(sheet),
            image_fit="letterbox",
            loras=[{"path": "ingredients", "strength": options.strength}],
            **(dev_sampling() if options.dev else {}),
        )
        generate(options, config, prompt.text())


if __name__ == "__main__":
    main()
