"""Prompts in two parts, `Reference sheet: ...` and `Generated video: ...`: those of the Ingredients LoRA."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scope_ltx.prompts.findings import Finding, advice, error, raise_errors

SHEET_LABEL = "Reference sheet:"
VIDEO_LABEL = "Generated video:"

_LABELS = re.compile(r"reference\s+sheet\s*:|generated\s+video\s*:", re.IGNORECASE)


@dataclass(frozen=True)
class TwoPartPrompt:
    """reference_sheet: what the panels show. generated_video: what happens. Neither may hold a label."""

    reference_sheet: str
    generated_video: str

    def __post_init__(self) -> None:
        for label, text in ((SHEET_LABEL, self.reference_sheet), (VIDEO_LABEL, self.generated_video)):
            if not text.strip():
                raise ValueError(f"the part {label!r} is empty: both parts need a text")
            inside = _LABELS.search(text)
            if inside:
                raise ValueError(
                    f"the part {label!r} holds the label {inside.group()!r}: give the parts separately"
                )

    def text(self) -> str:
        """The prompt. `parse_two_part` reads it back."""
        return f"{SHEET_LABEL} {self.reference_sheet.strip()}\n\n{VIDEO_LABEL} {self.generated_video.strip()}"


def parse_two_part(prompt: str) -> TwoPartPrompt:
    """The two parts of a prompt. Raises ValueError with all errors that `check_two_part` finds."""
    raise_errors(check_two_part(prompt), "the prompt is not in two parts")
    sheet, video = _LABELS.finditer(prompt)
    return TwoPartPrompt(prompt[sheet.end() : video.start()].strip(), prompt[video.end() :].strip())


def check_two_part(prompt: str) -> tuple[Finding, ...]:
    """What keeps a prompt from being read as two parts, and labels not written as in training."""
    labels = list(_LABELS.finditer(prompt))
    starts = {SHEET_LABEL: _of(labels, "r"), VIDEO_LABEL: _of(labels, "g")}
    found = []
    for label, matches in starts.items():
        if not matches:
            found.append(error(f"'{label}' is missing: write '{SHEET_LABEL} ... {VIDEO_LABEL} ...'."))
        elif len(matches) > 1:
            found.append(error(f"'{label}' is there {len(matches)} times: write it once."))
        found += [advice(f"Write '{label}' for '{got.group()}'.") for got in matches if got.group() != label]
    ends = [*(label.start() for label in labels), len(prompt)][1:]
    for match, end in zip(labels, ends, strict=True):
        if not prompt[match.end() : end].strip():
            found.append(error(f"Nothing follows '{match.group()}': say what belongs there."))
    if len(labels) == 2 and all(starts.values()):
        if labels[0] is not starts[SHEET_LABEL][0]:
            found.append(error(f"'{SHEET_LABEL}' must come before '{VIDEO_LABEL}'."))
        if prompt[: labels[0].start()].strip():
            found.append(error(f"There is text before '{SHEET_LABEL}': put it into one of the two parts."))
    return tuple(found)


def _of(labels: list[re.Match[str]], initial: str) -> list[re.Match[str]]:
    return [label for label in labels if label.group()[0].lower() == initial]
