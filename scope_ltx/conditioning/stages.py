"""One or two rounds of denoising: at which size, from which noise level, over which levels.

The second stage refines what the first has made at half the height and width. It starts from the upsampled
latents mixed with noise, and has neither guidance nor a reference.
Source: Lightricks/LTX-2, ltx-pipelines distilled and ic_lora pipelines.
"""

from __future__ import annotations

from dataclasses import dataclass

from scope_ltx.config import LTX2Config
from scope_ltx.sampling.geometry import ChunkGeometry
from scope_ltx.sampling.schedules import resolve_schedule

STAGE_TWO_SIGMAS = (0.909375, 0.725, 0.421875, 0.0)


@dataclass(frozen=True)
class Stage:
    """`scale`: how many times smaller than the chunk. `refines`: starts from another stage's latents."""

    geometry: ChunkGeometry
    sigmas: tuple[float, ...]
    scale: int
    refines: bool

    @property
    def noise_scale(self) -> float:
        """How much of what it starts from is noise: all, or as much as its first level says."""
        return self.sigmas[0] if self.refines else 1.0


@dataclass(frozen=True)
class StagePlan:
    """`note` is a sentence for the user when the schedule is not the one they chose."""

    stages: tuple[Stage, ...]
    note: str | None

    @property
    def steps(self) -> int:
        return sum(len(stage.sigmas) - 1 for stage in self.stages)


def plan_stages(config: LTX2Config) -> StagePlan:
    """The stages of a configuration, which has sizes that can be halved where it asks for two."""
    schedule = resolve_schedule(config)
    whole = ChunkGeometry.of(config)
    if not config.two_stage:
        return StagePlan((Stage(whole, schedule.sigmas, scale=1, refines=False),), schedule.note)
    half = ChunkGeometry.of(config, scale=2)
    first = Stage(half, schedule.sigmas, scale=2, refines=False)
    return StagePlan((first, Stage(whole, STAGE_TWO_SIGMAS, scale=1, refines=True)), schedule.note)
