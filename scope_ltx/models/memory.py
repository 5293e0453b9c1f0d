"""The one place that decides how much of the device the model's blocks get, and when they move.

A move is planned before anything is given up: a request that the budget cannot hold is refused while everything
stays where it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from scope_ltx.models.placement import Placement
from scope_ltx.sampling.headroom import Demand, Headroom
from scope_streaming.weights.plan import ResidencyPlan

logger = logging.getLogger(__name__)

Plans = tuple[ResidencyPlan, ResidencyPlan]
"""The transformer's and the text path's."""


class Places(Protocol):
    """Where blocks can be put: `scope_ltx.models.components.Components`, or a fake."""

    def plan(self, headroom_nbytes: int) -> Plans:
        """What would be streamed. Raises BudgetError."""

    def place(self, plans: Plans) -> Placement:
        """Read the blocks into their places. Raises PinningError, and torch's errors for want of memory."""

    def activations_nbytes(self, plans: Plans) -> int | None:
        """The most device memory that was held beside the model since the last call; None where nobody counts."""


class ModelMemory:
    """Owns the present placement. Belongs to the thread that owns the device."""

    def __init__(self, places: Places, first: Demand, on_move: Callable[[Placement | None], None]) -> None:
        """`on_move` is called with None before blocks move, when whatever is bound to their addresses must be
        given up, and with their new placement.

        Raises BudgetError, PinningError.
        """
        self._places = places
        self._on_move = on_move
        self._headroom = Headroom.of(first)
        self._placement: Placement | None = places.place(places.plan(self._headroom.nbytes))

    @property
    def placement(self) -> Placement:
        """Raises RuntimeError when a move and the way back have failed."""
        if self._placement is None:
            raise RuntimeError("the model's blocks have no place: the next request will place them again")
        return self._placement

    def fit(self, demand: Demand) -> None:
        """Make sure that a request like this fits, if need be by moving blocks.

        Raises as `__init__`, with everything as it was, or else placed again by the next call.
        """
        self._move(self._headroom.covering(demand))

    def learn(self, demand: Demand) -> None:
        """A request like this has been served: remember what it took."""
        placement = self.placement
        nbytes = self._places.activations_nbytes((placement.plan, placement.text_plan))
        if nbytes is not None:
            self._headroom = self._headroom.learned(demand, nbytes)

    def grow(self) -> None:
        """After running out of memory: leave more to activations. Raises as `fit`."""
        self._move(self._headroom.grown())

    def close(self) -> None:
        if self._placement is not None:
            self._placement.close()
            self._placement = None

    def _move(self, headroom: Headroom) -> None:
        if headroom.nbytes == self._headroom.nbytes and self._placement is not None:
            return
        plans = self._places.plan(headroom.nbytes)
        before = None if self._placement is None else (self._placement.plan, self._placement.text_plan)
        if plans != before:
            self._on_move(None)
            self.close()
            self._place(plans, before)
        self._headroom = headroom

    def _place(self, plans: Plans, before: Plans | None) -> None:
        """By `plans`; if that fails, as it was `before`, and then raise what failed."""
        failure: Exception | None = None
        try:
            self._placement = self._places.place(plans)
        except Exception as error:
            logger.exception("the blocks could not be moved")
            # Its traceback would hold on to what was placed so far.
            failure = error.with_traceback(None)
        if failure is not None and before is not None:
            self._placement = self._places.place(before)
        if self._placement is not None:
            self._on_move(self._placement)
        if failure is not None:
            raise failure
