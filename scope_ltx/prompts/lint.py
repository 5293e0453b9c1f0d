"""Whether a prompt suits a LoRA: one rule per form of prompt, and the warnings that hold for any form."""

from __future__ import annotations

import re
from collections.abc import Callable

from scope_ltx.manifest import PromptFacts, PromptForm
from scope_ltx.prompts.channels import check_channels
from scope_ltx.prompts.findings import Finding, advice, error
from scope_ltx.prompts.two_part import check_two_part

EDIT_PATTERNS = {
    "add": "Add a/an <subject>, <where in the scene>.",
    "remove": "Remove the <subject>.",
    "replace": "Replace the <subject> with a/an <new subject>.",
    "convert": "Convert the video into a/an <style name> style.",
}
"""The forms that Edit Anything was trained on, by their first word."""

_EDITS = {
    "add": re.compile(r"add (an?|some|the|two|three|several) .+, .+", re.IGNORECASE | re.DOTALL),
    "remove": re.compile(r"remove the .+", re.IGNORECASE | re.DOTALL),
    "replace": re.compile(r"replace the .+ with .+", re.IGNORECASE | re.DOTALL),
    "convert": re.compile(r"convert the video into .+ style\W*", re.IGNORECASE | re.DOTALL),
}

_QUOTED = re.compile(r'"[^"]+"|“[^”]+”|„[^“”]+[“”]|«[^»]+»|「[^」]+」|『[^』]+』')
"""Speech in quotation marks. Single marks are left out: they are apostrophes as well."""


def lint_prompt(facts: PromptFacts, name: str, prompt: str) -> tuple[Finding, ...]:
    """What a LoRA called `name` will not understand in a prompt, or understand better otherwise. Never raises."""
    found = [*_FORMS[facts.form](facts, name, prompt)]
    if facts.quoted_dialogue == "avoid":
        found += _quotes(name, prompt)
    return tuple(found)


def _free(facts: PromptFacts, name: str, prompt: str) -> tuple[Finding, ...]:
    return ()


def _scene(facts: PromptFacts, name: str, prompt: str) -> tuple[Finding, ...]:
    if not prompt.strip():
        return (advice(f"The prompt is empty. {name}: {facts.hint}"),)
    return ()


def _token(facts: PromptFacts, name: str, prompt: str) -> tuple[Finding, ...]:
    if prompt == facts.token:
        return ()
    return (
        error(f"{name} knows no prompt but {facts.token}: write exactly that, it has '{_shortened(prompt)}' now."),
    )


def _two_part(facts: PromptFacts, name: str, prompt: str) -> tuple[Finding, ...]:
    return tuple(Finding(finding.severity, f"{name}: {finding.text}") for finding in check_two_part(prompt))


def _channels(facts: PromptFacts, name: str, prompt: str) -> tuple[Finding, ...]:
    return tuple(Finding(finding.severity, f"{name}: {finding.text}") for finding in check_channels(prompt))


def _edit(facts: PromptFacts, name: str, prompt: str) -> tuple[Finding, ...]:
    text = prompt.strip()
    word = next(iter(re.findall(r"^[A-Za-z]+", text)), "").lower()
    if word not in EDIT_PATTERNS:
        words = ", ".join(known.capitalize() for known in EDIT_PATTERNS)
        return (error(f"A prompt for {name} begins with what to do, one of {words}: {_listed()}"),)
    if not _EDITS[word].fullmatch(text):
        return (advice(f"{name} was trained on '{EDIT_PATTERNS[word]}': write the prompt in that form."),)
    return ()


def _listed() -> str:
    return " ".join(EDIT_PATTERNS.values())


def _quotes(name: str, prompt: str) -> tuple[Finding, ...]:
    quoted = _QUOTED.search(prompt)
    if quoted is None:
        return ()
    return (
        advice(
            f"{name} draws subtitles into the picture for quoted speech such as {_shortened(quoted.group())}: "
            "tell what is said without quotation marks."
        ),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


_FORMS: dict[PromptForm, Callable[[PromptFacts, str, str], tuple[Finding, ...]]] = {
    "free": _free,
    "scene": _scene,
    "token": _token,
    "two_part": _two_part,
    "channels": _channels,
    "edit": _edit,
}
