"""What is found in a prompt: sentences for the user, never an exception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "advice"]


@dataclass(frozen=True)
class Finding:
    """error: the model was trained with nothing like this prompt. advice: the result will likely be better."""

    severity: Severity
    text: str


def error(text: str) -> Finding:
    return Finding("error", text)


def advice(text: str) -> Finding:
    return Finding("advice", text)


def raise_errors(findings: tuple[Finding, ...], what: str) -> None:
    """Raises ValueError with all errors among `findings`; `what` begins the sentence."""
    errors = [finding.text for finding in findings if finding.severity == "error"]
    if errors:
        raise ValueError(f"{what}: {' '.join(errors)}")
