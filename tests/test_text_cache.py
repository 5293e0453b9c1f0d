"""How many encoded prompts are remembered."""

from __future__ import annotations

import pytest
import torch

from scope_ltx.models.text import PromptEncoder, TextContext
from tests.tiny import tiny_parts


class Counting:
    """A tokenizer that counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, text: str) -> list[int]:
        self.asked.append(text)
        return [2, 5, 7]


def encoded(encoder: PromptEncoder, *prompts: str) -> TextContext:
    with torch.inference_mode():
        return [encoder.encode(prompt) for prompt in prompts][-1]


def test_the_cache_is_bounded_by_count_and_forgets_the_longest_unused() -> None:
    parts, words = tiny_parts(), Counting()
    encoder = PromptEncoder(words, parts.text_encoder, parts.connectors, cache_entries=2)
    encoded(encoder, "a", "b", "a", "c", "a", "b")
    assert words.asked == ["a", "b", "c", "b"]


@pytest.mark.parametrize(("contexts", "asked"), [(2.5, "abcb"), (1.0, "abacab"), (0.0, "abacab")])
def test_the_cache_is_bounded_by_bytes_and_keeps_the_latest(contexts: float, asked: str) -> None:
    parts, words = tiny_parts(), Counting()
    nbytes = encoded(PromptEncoder(words, parts.text_encoder, parts.connectors), "a").nbytes
    words.asked.clear()
    encoder = PromptEncoder(words, parts.text_encoder, parts.connectors, cache_nbytes=int(contexts * nbytes))
    encoded(encoder, "a", "a", "b", "a", "c", "a", "b", "b")
    assert "".join(words.asked) == asked
