"""A picture speaks in the voice of a reference clip: audio mode id_lora, with the ID-LoRA and a first frame.

    python examples/talking_head.py -o talking.mp4
    python examples/talking_head.py -o talking.mp4 --model models --face me.jpg --voice me.wav --says "Hello."

Without --face and --voice a drawn face and a synthetic voice are used. Give about 5 s of one person speaking; with
the published model, use --width 512 --height 512 --frames 121 or more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from drawn import draw_face, write_voice
from running import configured, generate, options_parser

from scope_ltx.prompts.channels import ChannelPrompt

VOICE_S = 5.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options_parser(__doc__, width=256, height=256, frames=97)
    parser.add_argument("--face", type=Path, help="picture of the speaker: the first frame")
    parser.add_argument("--voice", type=Path, help="the voice to imitate, 1 to 10 s")
    parser.add_argument("--says", default="The sea was calm this morning, and so was I.")
    parser.add_argument("--looks", default="A person in a blue shirt looks at the camera and speaks.")
    parser.add_argument("--guidance", type=float, default=3.0, help="how strongly the voice is amplified")
    options = parser.parse_args(arguments)
    prompt = ChannelPrompt(visual=options.looks, speech=options.says, sounds="A quiet room.")
    with tempfile.TemporaryDirectory() as made:
        face, voice = options.face, options.voice
        if face is None:
            face = Path(made, "face.png")
            draw_face("#e0b090", "#2050c0", options.width, options.height).save(face)
        config = configured(
            options,
            audio_mode="id_lora",
            audio_input=str(voice or write_voice(Path(made, "voice.wav"), VOICE_S)),
            identity_guidance_scale=options.guidance,
            i2v_image=str(face),
            loras=[{"path": "id-lora"}],
        )
        generate(options, config, prompt.text())


if __name__ == "__main__":
    main()
