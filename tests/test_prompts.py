"""Prompts in channels and in two parts, and what each form of prompt is told."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_ltx.manifest import PromptFacts, PromptForm
from scope_ltx.prompts.channels import TAGS, ChannelPrompt, check_channels, has_channel_tags, parse_channels
from scope_ltx.prompts.lint import lint_prompt
from scope_ltx.prompts.two_part import TwoPartPrompt, check_two_part, parse_two_part

words = st.text(st.characters(codec="utf-8", exclude_characters="[]:"), min_size=1).filter(
    lambda text: text.strip()
)
SEPARATORS = ["\n", " ", "\n\n", "\t"]


def texts(prompt: str) -> list[str]:
    findings = check_channels(prompt)
    assert all(finding.severity == "error" for finding in findings)
    return [finding.text for finding in findings]


@given(visual=words, speech=words, sounds=words, separator=st.sampled_from(SEPARATORS))
def test_channels_are_read_back_as_they_were_written(
    visual: str, speech: str, sounds: str, separator: str
) -> None:
    prompt = ChannelPrompt(visual, speech, sounds)
    parsed = parse_channels(prompt.text(separator))
    assert parsed == ChannelPrompt(visual.strip(), speech.strip(), sounds.strip())
    assert check_channels(prompt.text(separator)) == ()
    assert has_channel_tags(prompt.text(separator))


@pytest.mark.parametrize("order", list(itertools.permutations(TAGS)))
def test_the_order_of_channels_is_free(order: tuple[str, ...]) -> None:
    said = {"VISUAL": "A face.", "SPEECH": "Hello: world [laughs].", "SOUNDS": "Birds."}
    parsed = parse_channels(" ".join(f"[{tag}]:{said[tag]}" for tag in order))
    assert parsed == ChannelPrompt("A face.", "Hello: world [laughs].", "Birds.")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A face in a park", ["The prompt has no channel tags: write it as [VISUAL]:"]),
        ("", ["The prompt has no channel tags"]),
        ("[VISUAL]: a [SPEECH]: b", ["[SOUNDS] is missing"]),
        ("[SPEECH]: b", ["[VISUAL] is missing", "[SOUNDS] is missing"]),
        ("[VISUAL]: a [SPEECH]: b [SOUNDS]: c [SPEECH]: d", ["[SPEECH] is there 2 times"]),
        ("[VISUAL]: a [SPEECH]:\n[SOUNDS]: c", ["[SPEECH] is empty"]),
        ("[VISUAL]: a [SPEECH]: b [SOUNDS]:  ", ["[SOUNDS] is empty"]),
        ("[VISUAL]: a [SPEACH]: b [SOUNDS]: c", ["[SPEACH] is not a tag: write [SPEECH]:."]),
        ("[visual]: a [SPEECH]: b [SOUNDS]: c", ["[visual] is not a tag: write [VISUAL]:."]),
        ("[VISUALS]: a [SPEECH]: b [SOUND]: c", ["write [VISUAL]:.", "write [SOUNDS]:."]),
        ("[VISUAL]: a [SPEECH] b [SOUNDS]: c", ["[SPEECH] needs a colon after it"]),
        ("[VISUAL]: a [SPEECH]: b [SOUNDS]: c [MUSIC]: d", ["[MUSIC] is not a tag: the tags are [VISUAL],"]),
        ("Close-up. [VISUAL]: a [SPEECH]: b [SOUNDS]: c", ["There is text before the first tag"]),
    ],
)
def test_what_is_wrong_with_channels_is_told(prompt: str, expected: list[str]) -> None:
    found = texts(prompt)
    assert len(found) == len(expected)
    for text, part in zip(found, expected, strict=True):
        assert part in text
    with pytest.raises(ValueError, match=re.escape(f"the prompt is not in channels: {found[0]}")):
        parse_channels(prompt)


def test_a_channel_prompt_has_no_empty_channel_and_no_tag_inside() -> None:
    with pytest.raises(ValueError, match=r"the \[SPEECH\] channel is empty"):
        ChannelPrompt("a", " ", "c")
    with pytest.raises(ValueError, match=r"the text of \[VISUAL\] holds the tag \[SOUNDS\]:"):
        ChannelPrompt("a [SOUNDS]: b", "b", "c")
    assert not has_channel_tags("[VISUAL] without a colon")


@given(prompt=st.text("[]:VISUALSPEECHO \nax") | st.text())
def test_checking_channels_never_raises_and_decides_whether_parsing_does(prompt: str) -> None:
    if check_channels(prompt):
        with pytest.raises(ValueError, match="the prompt is not in channels"):
            parse_channels(prompt)
    else:
        assert check_channels(parse_channels(prompt).text()) == ()


@given(sheet=words, video=words)
def test_two_parts_are_read_back_as_they_were_written(sheet: str, video: str) -> None:
    prompt = TwoPartPrompt(sheet, video).text()
    assert parse_two_part(prompt) == TwoPartPrompt(sheet.strip(), video.strip())
    assert check_two_part(prompt) == ()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A man walks.", ["'Reference sheet:' is missing", "'Generated video:' is missing"]),
        ("Reference sheet: a man", ["'Generated video:' is missing"]),
        ("Reference sheet: Generated video: b", ["Nothing follows 'Reference sheet:'"]),
        ("Reference sheet: a Generated video:", ["Nothing follows 'Generated video:'"]),
        ("Generated video: b Reference sheet: a", ["'Reference sheet:' must come before"]),
        ("Reference sheet: a Generated video: b Generated video: c", ["'Generated video:' is there 2 times"]),
        ("Hello. Reference sheet: a Generated video: b", ["There is text before 'Reference sheet:'"]),
    ],
)
def test_what_is_wrong_with_two_parts_is_told(prompt: str, expected: list[str]) -> None:
    found = check_two_part(prompt)
    assert [finding.severity for finding in found] == ["error"] * len(expected)
    for finding, part in zip(found, expected, strict=True):
        assert part in finding.text
    with pytest.raises(ValueError, match="the prompt is not in two parts"):
        parse_two_part(prompt)


def test_labels_in_another_case_are_read_with_advice() -> None:
    prompt = "REFERENCE SHEET: a man.\nGenerated  video: he walks."
    assert parse_two_part(prompt) == TwoPartPrompt("a man.", "he walks.")
    found = check_two_part(prompt)
    assert [finding.severity for finding in found] == ["advice", "advice"]
    assert found[0].text == "Write 'Reference sheet:' for 'REFERENCE SHEET:'."


def test_two_parts_are_never_empty_and_hold_no_label() -> None:
    with pytest.raises(ValueError, match="the part 'Generated video:' is empty"):
        TwoPartPrompt("a", "")
    with pytest.raises(ValueError, match=r"the part 'Reference sheet:' holds .*'generated video:'"):
        TwoPartPrompt("a generated video: b", "c")


@given(prompt=st.text("Reference sheet:Generated video \nax") | st.text())
def test_checking_two_parts_never_raises_and_decides_whether_parsing_does(prompt: str) -> None:
    if any(finding.severity == "error" for finding in check_two_part(prompt)):
        with pytest.raises(ValueError, match="the prompt is not in two parts"):
            parse_two_part(prompt)
    else:
        assert check_two_part(parse_two_part(prompt).text()) == ()


def facts(form: PromptForm, *, avoid_quotes: bool = False) -> PromptFacts:
    token = "3d1t" if form == "token" else None
    return PromptFacts(
        form=form, token=token, hint="Describe it.", quoted_dialogue="avoid" if avoid_quotes else "fine"
    )


@pytest.mark.parametrize(
    ("form", "prompt", "severity", "part"),
    [
        ("token", "a red hat", "error", "X knows no prompt but 3d1t: write exactly that, it has 'a red hat' now."),
        ("token", " 3d1t", "error", "write exactly that"),
        ("token", "3D1T", "error", "write exactly that"),
        ("token", "p" * 99, "error", "ppp...'"),
        ("two_part", "a red hat", "error", "X: 'Reference sheet:' is missing"),
        ("channels", "a red hat", "error", "X: The prompt has no channel tags"),
        ("edit", "a red hat", "error", "begins with what to do, one of Add, Remove, Replace, Convert"),
        ("edit", "", "error", "begins with what to do"),
        ("edit", "Please remove the dog.", "error", "begins with what to do"),
        ("edit", "Add a red hat", "advice", "trained on 'Add a/an <subject>, <where in the scene>.'"),
        ("edit", "Remove dog", "advice", "'Remove the <subject>.'"),
        ("edit", "Replace the dog by a cat", "advice", "'Replace the <subject> with a/an <new subject>.'"),
        ("edit", "Convert to watercolor", "advice", "'Convert the video into a/an <style name> style.'"),
        ("scene", " ", "advice", "The prompt is empty. X: Describe it."),
    ],
)
def test_each_form_has_its_rule(form: PromptForm, prompt: str, severity: str, part: str) -> None:
    found = lint_prompt(facts(form), "X", prompt)
    assert found[0].severity == severity
    assert part in found[0].text


@pytest.mark.parametrize(
    ("form", "prompt"),
    [
        ("token", "3d1t"),
        ("two_part", "Reference sheet: a man. Generated video: he walks."),
        ("channels", "[VISUAL]: a. [SPEECH]: b. [SOUNDS]: c."),
        ("edit", "Add a dog with brown fur, on the left of the bench."),
        ("edit", "Add an umbrella, above her."),
        ("edit", "remove the car behind the man"),
        ("edit", "Replace the car on the street with a truck with chrome wheels."),
        ("edit", "Convert the video into a watercolor style."),
        ("scene", 'A man says "hello".'),
        ("free", ""),
    ],
)
def test_prompts_in_their_form_are_left_alone(form: PromptForm, prompt: str) -> None:
    assert lint_prompt(facts(form), "X", prompt) == ()


@pytest.mark.parametrize("quoted", ['"hello there"', "“hello”", "「此茶不可饮!」", "『え』", "«salut»", "„hallo“"])
def test_quoted_dialogue_is_warned_of_where_it_draws_subtitles(quoted: str) -> None:
    (found,) = lint_prompt(facts("scene", avoid_quotes=True), "X", f"She whispers {quoted} to him")
    assert found.severity == "advice"
    assert quoted in found.text
    assert "without quotation marks" in found.text


def test_apostrophes_and_inches_are_no_quotes() -> None:
    assert lint_prompt(facts("scene", avoid_quotes=True), "X", "It's the prince's 5' sword, 12\" wide") == ()


@given(form=st.sampled_from(["free", "scene", "token", "two_part", "channels", "edit"]), prompt=st.text())
def test_linting_never_raises(form: PromptForm, prompt: str) -> None:
    for finding in lint_prompt(facts(form, avoid_quotes=True), "X", prompt):
        assert finding.severity in ("error", "advice")
        assert finding.text.strip()
