"""Weighted prompts, and the way from one mix to another over a number of chunks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scope_ltx.prompt_mix import MAX_PROMPTS, Transition, between, checked_mix, described
from scope_ltx.request import WeightedPrompt

RED, BLUE, GREEN = "a red ball", "a blue box", "a green field"
WEIGHTED = st.lists(
    st.builds(WeightedPrompt, st.sampled_from([RED, BLUE, GREEN]), st.floats(1e-3, 1e3)), min_size=1, max_size=6
)


def mix(**weights: float) -> tuple[WeightedPrompt, ...]:
    texts = {"red": RED, "blue": BLUE, "green": GREEN}
    return tuple(WeightedPrompt(texts[name], weight) for name, weight in weights.items())


@given(WEIGHTED, st.floats(1e-2, 1e2))
def test_weights_sum_to_1_on_any_scale_and_equal_texts_count_together(
    prompts: list[WeightedPrompt], scale: float
) -> None:
    made = checked_mix(prompts)
    assert sum(one.weight for one in made) == pytest.approx(1)
    assert len({one.text for one in made}) == len(made)
    total = sum(one.weight for one in prompts)
    for one in made:
        share = sum(given.weight for given in prompts if given.text == one.text) / total
        assert one.weight == pytest.approx(share)
    scaled = checked_mix([WeightedPrompt(one.text, one.weight * scale) for one in prompts])
    assert [one.weight for one in scaled] == pytest.approx([one.weight for one in made])


def test_what_has_no_weight_is_left_out() -> None:
    assert checked_mix([WeightedPrompt(RED, 0), WeightedPrompt(BLUE, 3)]) == mix(blue=1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([-1.0, 2.0], r"a number from 0, got -1\.0"),
        ([math.nan], "a number from 0, got nan"),
        ([math.inf], "a number from 0, got inf"),
        ([0.0, 0.0], r"at least one prompt needs a weight above 0, got \[0\.0, 0\.0\]"),
        ([], "at least one prompt needs a weight"),
        ([1e308, 1e308], "at least one prompt needs"),
        ([1.0] * (MAX_PROMPTS + 1), f"at most {MAX_PROMPTS} prompts are blended, got {MAX_PROMPTS + 1}"),
    ],
)
def test_weights_that_cannot_be_used(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_mix([WeightedPrompt(f"{RED} {at}", weight) for at, weight in enumerate(weights)])


@given(WEIGHTED, WEIGHTED, st.floats(0, 1))
def test_every_weight_moves_in_proportion(
    start: list[WeightedPrompt], end: list[WeightedPrompt], progress: float
) -> None:
    one, other = checked_mix(start), checked_mix(end)
    shares = {prompt.text: prompt.weight for prompt in between(one, other, progress)}
    for text in (RED, BLUE, GREEN):
        first, last = (sum(prompt.weight for prompt in mixed if prompt.text == text) for mixed in (one, other))
        assert shares.get(text, 0.0) == pytest.approx(first * (1 - progress) + last * progress)


def test_a_transition_reaches_its_end_with_the_chunk_that_was_asked_for() -> None:
    way = Transition(mix(red=1))
    assert way.next() == mix(red=1)
    way.turn(mix(blue=1), 4)
    assert [round(one.next()[0].weight, 6) for one in [way] * 3] == [0.75, 0.5, 0.25]
    assert way.next() == way.next() == mix(blue=1)
    way.turn(mix(green=1), 0)
    assert way.next() == mix(green=1)
    with pytest.raises(ValueError, match="0 or more chunks, got -1"):
        way.turn(mix(red=1), -1)
    assert way.next() == mix(green=1)


def test_a_turn_in_the_middle_starts_from_what_is_shown() -> None:
    way = Transition(mix(red=1))
    way.turn(mix(blue=1), 2)
    assert way.next() == mix(red=0.5, blue=0.5)
    way.turn(mix(green=1), 2)
    assert way.next() == mix(red=0.25, blue=0.25, green=0.5)
    assert way.next() == mix(green=1)


def test_a_step_back_gives_the_same_again_wherever_the_way_is() -> None:
    way = Transition(mix(red=1))
    way.turn(mix(blue=1), 2)
    for expected in (mix(red=0.5, blue=0.5), mix(blue=1), mix(blue=1)):
        for _ in range(3):
            assert way.next() == expected
            way.back()
        assert way.next() == expected
    way.back()
    way.turn(mix(green=1), 2)
    assert way.next() == mix(blue=0.5, green=0.5)
    way.turn(mix(red=1), 2)
    way.back()
    assert way.next() == mix(blue=0.25, green=0.25, red=0.5)


def test_how_a_mix_is_told() -> None:
    assert described(mix(red=1)) == RED
    assert described(mix(red=0.75, blue=0.25)) == f"75% {RED} + 25% {BLUE}"
