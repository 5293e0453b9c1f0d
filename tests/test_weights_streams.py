"""Streams are used again when their holders are gone."""

from __future__ import annotations

from itertools import count

from scope_streaming.weights.streams import Streams


class Holder:
    pass


def test_a_stream_has_one_holder_and_then_the_next() -> None:
    streams = Streams(iter(count()).__next__)
    first, second = Holder(), Holder()
    assert [streams.lend(first), streams.lend(second)] == [0, 1]
    del first
    third = Holder()
    assert streams.lend(third) == 0
    assert streams.lend(third) == 2, "a holder may have several"
    del second, third
    again = [Holder() for _ in range(4)]
    assert sorted(streams.lend(holder) for holder in again) == [0, 1, 2, 3]


def test_a_spoiled_stream_is_not_lent_again() -> None:
    streams = Streams(iter(count()).__next__)
    holder = Holder()
    streams.spoil(streams.lend(holder))
    assert streams.lend(holder) == 1
    del holder
    assert {streams.lend(Holder()) for _ in range(3)} == {1}
