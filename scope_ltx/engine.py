"""How a model is run, as opposed to what it makes: memory and acceleration. Set when it is loaded.

Imports no torch, so that the command line can check them at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 2**30

Acceleration = Literal["auto", "off", "graphs", "compile"]
"""off: launch every kernel. graphs: replay captured kernels. compile: graphs of compiled blocks. auto: compile
on a CUDA device that can, graphs on one that cannot, off on the CPU."""


@dataclass(frozen=True)
class EngineOptions:
    """vram_budget_gb: device memory that this process may use, in GiB; None is what is free at load. On the
    CPU it bounds the blocks alone. pageable: do not lock host memory; copies are then slower.

    Raises ValueError for a budget that is not above 0.
    """

    vram_budget_gb: float | None = None
    pageable: bool = False
    acceleration: Acceleration = "auto"

    def __post_init__(self) -> None:
        if self.vram_budget_gb is not None and not 0 < self.vram_budget_gb < float("inf"):
            raise ValueError(f"the memory budget must be a number above 0 GiB, got {self.vram_budget_gb}")


DEFAULT_ENGINE = EngineOptions()
