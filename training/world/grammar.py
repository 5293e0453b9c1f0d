"""Captions: one canonical sentence for a scene, paraphrases of it, and reading either back.

canonical: a {size} {colour} {shape} {motion} [and below it a ... {motion}] on a {background} background
           [, drawn in outline] [, the camera {move}] [, a {speaker} voice hums]
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from training.world.scene import Scene
from training.world.words import BACKGROUNDS, COLOURS, SPEAKERS

SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "medium": ("medium", "medium-sized", "mid-sized"),
    "large": ("large", "big", "huge"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    **{colour: (colour,) for colour in COLOURS},
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle", "three-sided shape"),
    "star": ("star", "five-pointed star"),
}
MOTION_WORDS: dict[str, tuple[str, ...]] = {
    "slides right": ("slides right", "glides to the right", "drifts to the right", "moves rightwards"),
    "slides left": ("slides left", "glides to the left", "drifts to the left", "moves leftwards"),
    "moves up": ("moves up", "rises", "floats upwards", "climbs"),
    "moves down": ("moves down", "sinks", "drifts downwards", "descends"),
    "bounces steadily": ("bounces steadily", "bounces up and down", "keeps bouncing", "hops on the spot"),
    "circles around": ("circles around", "goes round in circles", "orbits", "moves in a circle"),
    "grows slowly": ("grows slowly", "gets bigger", "expands", "swells"),
    "shrinks slowly": ("shrinks slowly", "gets smaller", "contracts", "dwindles"),
    "blinks slowly": ("blinks slowly", "flashes on and off", "keeps blinking", "appears and disappears"),
    "stays still": ("stays still", "does not move", "rests", "stands still"),
}
BELOW_WORDS = ("and below it", "with, underneath,", "and under it", "and beneath it")
BACKGROUND_WORDS: dict[str, tuple[str, ...]] = {
    **{background: (background,) for background in BACKGROUNDS},
    "gray": ("gray", "grey"),
    "navy": ("navy", "dark blue"),
    "beige": ("beige", "sand-coloured"),
}
GROUND_WORDS = ("on a {} background", "against a {} backdrop", "in front of a {} wall", "over a {} background")
OUTLINE_WORDS = ("drawn in outline", "as a line drawing", "shown as outlines")
CAMERA_WORDS: dict[str, tuple[str, ...]] = {
    "pans left": ("the camera pans left", "camera panning to the left"),
    "pans right": ("the camera pans right", "camera panning to the right"),
    "zooms in": ("the camera zooms in", "camera moving closer"),
    "zooms out": ("the camera zooms out", "camera moving away"),
}
SPEAKER_WORDS: dict[str, tuple[str, ...]] = {
    speaker: (f"a {speaker} voice hums", f"hummed by a {speaker} voice") for speaker in SPEAKERS
}
_WORDS = r"\b({})\b"
_GROUND = r"(?:on|against|in front of|over) a ({}) (?:background|backdrop|wall)"
ANY_VOICE_WORDS = ("a voice hums", "hummed by a voice")


@dataclass(frozen=True)
class ObjectFacts:
    """What a caption asks of one object, in canonical words."""

    size: str
    colour: str
    shape: str
    motion: str


@dataclass(frozen=True)
class Facts:
    """What a caption asks for; the first object is the upper one. speaker: None where no voice is named."""

    objects: tuple[ObjectFacts, ...]
    background: str
    camera: str = "static"
    style: str = "flat"
    speaker: str | None = None


def facts(scene: Scene) -> Facts:
    """What the scene's caption says."""
    objects = tuple(ObjectFacts(thing.size, thing.colour, thing.shape, thing.motion) for thing in scene.objects)
    return Facts(objects, scene.background, scene.camera, scene.style, scene.speaker)


def caption(
    scene: Scene,
    rng: random.Random | None = None,
    *,
    name_speaker: bool = True,
    name_camera: bool = True,
    name_style: bool = True,
) -> str:
    """The canonical sentence, or with `rng` a paraphrase of it.

    name_speaker=False: "a voice hums", whose it is comes from elsewhere (an identity LoRA's reference). The
    camera and the style are left out likewise. A style or effect that only a LoRA adds is never named.
    """
    pick = (lambda words: words[0]) if rng is None else rng.choice
    phrases = [
        f"a {words} {pick(MOTION_WORDS[thing.motion])}"
        for thing in scene.objects
        for words in [
            f"{pick(SIZE_WORDS[thing.size])} {pick(COLOUR_WORDS[thing.colour])} {pick(SHAPE_WORDS[thing.shape])}"
        ]
    ]
    subject = f" {pick(BELOW_WORDS)} ".join(phrases)
    ground = pick(GROUND_WORDS).format(pick(BACKGROUND_WORDS[scene.background]))
    first = rng is not None and rng.random() < 0.25
    parts = [f"{ground}, {subject}" if first else f"{subject} {ground}"]
    if scene.style == "outline" and name_style:
        parts.append(pick(OUTLINE_WORDS))
    if scene.camera != "static" and name_camera:
        parts.append(pick(CAMERA_WORDS[scene.camera]))
    if scene.speaker is not None:
        parts.append(pick(SPEAKER_WORDS[scene.speaker] if name_speaker else ANY_VOICE_WORDS))
    return ", ".join(parts)


def parse(text: str) -> Facts:
    """What a caption asks for, canonical or paraphrased, in any case and with or without a full stop.

    Raises ValueError where an object lacks its size, colour, shape or motion, or the background is not named.
    """
    lowered = " ".join(text.lower().replace(".", " ").split())
    ground = _required(_GROUND, BACKGROUND_WORDS, lowered)
    without_ground = re.sub(_GROUND.format("[\\w -]+"), "", lowered)
    halves = re.split("|".join(map(re.escape, BELOW_WORDS)), without_ground)
    objects = tuple(
        ObjectFacts(
            _required(_WORDS, SIZE_WORDS, half),
            _required(_WORDS, COLOUR_WORDS, half),
            _required(_WORDS, SHAPE_WORDS, half),
            _required(_WORDS, MOTION_WORDS, half),
        )
        for half in halves
    )
    return Facts(
        objects,
        ground,
        _found(_WORDS, CAMERA_WORDS, lowered) or "static",
        "outline" if any(words in lowered for words in OUTLINE_WORDS) else "flat",
        _found(_WORDS, SPEAKER_WORDS, lowered),
    )


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can have, sorted: what a tokenizer must know."""
    tables = (SIZE_WORDS, COLOUR_WORDS, SHAPE_WORDS, MOTION_WORDS, BACKGROUND_WORDS, CAMERA_WORDS, SPEAKER_WORDS)
    phrases = [phrase for table in tables for choices in table.values() for phrase in choices]
    phrases += [*BELOW_WORDS, *GROUND_WORDS, *OUTLINE_WORDS, *ANY_VOICE_WORDS, "a", "an"]
    return tuple(sorted({word.strip(",") for phrase in phrases for word in phrase.split() if word != "{}"}))


def _found(pattern: str, table: dict[str, tuple[str, ...]], text: str) -> str | None:
    """The canonical word of the longest phrase of `table` in the text."""
    names = {phrase: name for name, phrases in table.items() for phrase in phrases}
    choices = "|".join(re.escape(phrase) for phrase in sorted(names, key=len, reverse=True))
    match = re.search(pattern.format(choices), text)
    return names[match.group(1)] if match else None


def _required(pattern: str, table: dict[str, tuple[str, ...]], text: str) -> str:
    found = _found(pattern, table, text)
    if found is None:
        raise ValueError(f"{text!r} names none of {', '.join(table)}")
    return found
