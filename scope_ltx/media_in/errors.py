"""The one error of this package: a picture or clip that a user named cannot be used."""

from __future__ import annotations

from scope_ltx.errors import ScopeLtxError


class MediaInputError(ScopeLtxError, ValueError):
    """Says which input, what is wrong with it, and what to do. Also a ValueError: it is a value that was given."""

    def __init__(self, name: object, problem: str, advice: str) -> None:
        self.name = str(name)
        self.problem = problem
        self.advice = advice
        super().__init__(f"{self.name}: {problem}. {advice}")
