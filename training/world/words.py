"""The world's vocabulary: what can be named, in the words of the canonical caption, and how it looks."""

from __future__ import annotations

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (222, 32, 32),
    "green": (34, 160, 58),
    "blue": (46, 92, 255),
    "yellow": (250, 220, 30),
    "orange": (255, 132, 10),
    "purple": (140, 52, 190),
    "cyan": (40, 205, 220),
    "pink": (255, 125, 185),
}

BACKGROUNDS: dict[str, RGB] = {
    "black": (8, 8, 8),
    "white": (246, 246, 246),
    "gray": (112, 112, 112),
    "navy": (14, 20, 64),
    "beige": (226, 210, 176),
}

SHAPES = ("circle", "square", "triangle", "star")

SIZES: dict[str, float] = {"medium": 0.18, "large": 0.24}
"""Radius in units of the frame's shorter side, of one object alone. A latent stands for 32x32 pixels, and corners
must be told from arcs: at 0.13 a default frame's square was 2.3 latents wide, and every third one was drawn
round."""

MOTIONS = (
    "slides right",
    "slides left",
    "moves up",
    "moves down",
    "bounces steadily",
    "circles around",
    "grows slowly",
    "shrinks slowly",
    "blinks slowly",
    "stays still",
)

PAIR_MOTIONS = tuple(motion for motion in MOTIONS if motion not in {"moves up", "moves down"})
"""With two objects each keeps its half of the frame, so that the order stays readable."""

CAMERA_MOTIONS = ("circles around", "blinks slowly", "stays still")
"""Under a moving camera only motions that stay tellable from it."""

CAMERAS = ("static", "pans left", "pans right", "zooms in", "zooms out")

STYLES = ("flat", "outline")

ADDED_STYLES = ("striped",)
"""Never in the base model's scenes: what a style LoRA adds."""

EFFECTS = ("none", "chime")
"""`chime` is never in the base model's scenes: an audio-video LoRA makes everything swell to a bell, once a
second."""

SPEAKERS = ("warm", "hollow", "bright")
