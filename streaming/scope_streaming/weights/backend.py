"""The device's forms of what streaming is made of: host memory, slots and copies. Chosen in one place."""

from __future__ import annotations

import torch

from scope_streaming.weights.engine import CopyEngine, CpuCopyEngine, CudaCopyEngine
from scope_streaming.weights.host import HostMemory, cuda_memory, pageable_memory
from scope_streaming.weights.plan import ResidencyPlan
from scope_streaming.weights.ring import SlotRing
from scope_streaming.weights.run_ahead import OneRunAhead, RunAhead, Unbounded


def host_memory(device: torch.device, *, pageable: bool = False) -> HostMemory:
    """Page-locked for a CUDA device unless `pageable` is asked for."""
    return cuda_memory(device) if device.type == "cuda" and not pageable else pageable_memory()


def slot_ring(plan: ResidencyPlan, device: torch.device) -> SlotRing | None:
    """The slots of `plan` on `device`; None where it has none."""
    if not plan.slots:
        return None
    engine: CopyEngine = CpuCopyEngine()
    if device.type == "cuda":
        engine = CudaCopyEngine(device, plan.slots)
    return SlotRing(plan.slots, plan.slot_nbytes, device, engine)


def run_ahead(device: torch.device) -> RunAhead:
    return OneRunAhead(device) if device.type == "cuda" else Unbounded()
