"""Prompts in channels: `[VISUAL]: ... [SPEECH]: ... [SOUNDS]: ...`, as the identity LoRA was trained on.

The order is free, and a newline or a space separates the channels. Other brackets belong to the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from scope_ltx.prompts.findings import Finding, error, raise_errors

TAGS = ("VISUAL", "SPEECH", "SOUNDS")

_EXAMPLE = "[VISUAL]: the picture [SPEECH]: what is said [SOUNDS]: what else is heard"
_BRACKET = re.compile(r"\[([^\[\]\n]{1,40})\](:?)")


@dataclass(frozen=True)
class ChannelPrompt:
    """One text per channel. Each must say something and must not hold a tag itself."""

    visual: str
    speech: str
    sounds: str

    def __post_init__(self) -> None:
        for tag, text in zip(TAGS, self._texts(), strict=True):
            if not text.strip():
                raise ValueError(f"the [{tag}] channel is empty: every channel needs a text")
            inside = [mark.text for mark in _marks(text) if mark.tag or mark.problem]
            if inside:
                raise ValueError(f"the text of [{tag}] holds the tag {inside[0]}: give each channel its own text")

    def text(self, separator: str = "\n") -> str:
        """The prompt, in the order visual, speech, sounds. `parse_channels` reads it back."""
        pairs = zip(TAGS, self._texts(), strict=True)
        return separator.join(f"[{tag}]: {text.strip()}" for tag, text in pairs)

    def _texts(self) -> tuple[str, str, str]:
        return self.visual, self.speech, self.sounds


@dataclass(frozen=True)
class _Mark:
    """A bracket in the prompt: a tag, or a `problem` where it looks like one, or neither."""

    start: int
    end: int
    text: str
    tag: str | None
    problem: str | None


def parse_channels(prompt: str) -> ChannelPrompt:
    """The three channels of a prompt. Raises ValueError with everything that `check_channels` finds."""
    raise_errors(check_channels(prompt), "the prompt is not in channels")
    texts = dict(_sections(prompt, [mark for mark in _marks(prompt) if mark.tag]))
    return ChannelPrompt(visual=texts["VISUAL"], speech=texts["SPEECH"], sounds=texts["SOUNDS"])


def check_channels(prompt: str) -> tuple[Finding, ...]:
    """Everything that keeps a prompt from being read as three channels; nothing if it can be."""
    marks = _marks(prompt)
    tags = [mark for mark in marks if mark.tag]
    found = [error(mark.problem) for mark in marks if mark.problem]
    names = [mark.tag for mark in tags]
    if not tags and not found:
        return (error(f"The prompt has no channel tags: write it as {_EXAMPLE}."),)
    meant = {mark.tag or _meant(mark.text.strip("[]:")) for mark in marks if mark.tag or mark.problem}
    for tag in TAGS:
        count = names.count(tag)
        if count > 1:
            found.append(error(f"[{tag}] is there {count} times: put all of it into one channel."))
        elif count == 0 and tag not in meant:
            found.append(error(f"[{tag}] is missing: write the prompt as {_EXAMPLE}."))
    found += [
        error(f"[{tag}] is empty: say what belongs there.") for tag, text in _sections(prompt, tags) if not text
    ]
    first = min((mark.start for mark in marks if mark.tag or mark.problem), default=0)
    if prompt[:first].strip():
        found.append(error("There is text before the first tag: every word must belong to a channel."))
    return tuple(found)


def has_channel_tags(prompt: str) -> bool:
    """Whether any of the three tags is in the prompt as it must be written."""
    return any(mark.tag for mark in _marks(prompt))


def _sections(prompt: str, tags: list[_Mark]) -> list[tuple[str, str]]:
    """(tag, text) of each tag, the text reaching to the next tag."""
    ends = [*(mark.start for mark in tags), len(prompt)][1:]
    return [(mark.tag or "", prompt[mark.end : end].strip()) for mark, end in zip(tags, ends, strict=True)]


def _marks(prompt: str) -> list[_Mark]:
    return [_mark(match) for match in _BRACKET.finditer(prompt)]


def _mark(match: re.Match[str]) -> _Mark:
    name, colon = match.group(1), match.group(2)
    meant = _meant(name)
    tag = problem = None
    if name in TAGS and colon:
        tag = name
    elif name in TAGS:
        problem = f"[{name}] needs a colon after it: write [{name}]:."
    elif meant:
        problem = f"[{name}] is not a tag: write [{meant}]:."
    elif colon and name.isupper():
        problem = f"[{name}] is not a tag: the tags are {', '.join(f'[{known}]' for known in TAGS)}."
    return _Mark(match.start(), match.end(), match.group(0), tag, problem)


def _meant(name: str) -> str | None:
    """The tag that a bracket's text most likely stands for. 0.75 finds one wrong, missing or added letter."""
    return next(iter(get_close_matches(name.strip().upper(), TAGS, n=1, cutoff=0.75)), None)
