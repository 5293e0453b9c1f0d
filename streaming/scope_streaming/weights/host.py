"""Page-locked host memory, from which the device copies without the processor.

PyTorch's `pin_memory` rounds a size up to a power of two: a block of 370 MiB would lock 512. Here ordinary
memory of the exact size is registered with the driver instead, and only after it was filled: the threads that fill
it then bring its pages in, side by side, which the driver would do one after another.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor


class PinningError(RuntimeError):
    """Host memory could not be page-locked."""

    def __init__(self, nbytes: int, pinned_nbytes: int, reason: str) -> None:
        super().__init__(
            f"could not page-lock {nbytes / 2**20:.0f} MiB of host memory (already locked: "
            f"{pinned_nbytes / 2**30:.2f} GiB): {reason}. Raise the limit (`ulimit -l unlimited`; in a container "
            "`--ulimit memlock=-1`; under WSL raise `memory` in .wslconfig, at most half of it can be locked), "
            "free host memory, or choose pageable host memory, which copies at about half the speed."
        )


class HostMemory:
    """Hands out host buffers and unlocks them at the end. `pinned_nbytes` is what is locked now.

    register and unregister take an address (and a size) and raise RuntimeError; None leaves memory pageable.
    A locked buffer lives until it is unlocked: an address that is freed while locked could not be locked again.
    """

    def __init__(
        self, register: Callable[[int, int], None] | None, unregister: Callable[[int], None] | None
    ) -> None:
        self._register = register
        self._unregister = unregister
        self._locked: dict[int, Tensor] = {}
        # The end of the process unlocks by itself, and the driver may be gone by then.
        weakref.finalize(self, _unlock_all, self._locked, unregister).atexit = False

    @property
    def pinned_nbytes(self) -> int:
        # Of a copy: the thread that decodes asks while the one that generates locks and releases.
        return sum(buffer.numel() for buffer in list(self._locked.values()))

    def allocate(self, nbytes: int) -> Tensor:
        """1-D uint8 of `nbytes`, page-aligned, not locked yet; in pages of 2 MiB where the system has them."""
        pages = _private_map(nbytes)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        return torch.frombuffer(pages, dtype=torch.uint8)

    def lock(self, buffer: Tensor) -> None:
        """Lock a buffer from `allocate`, as far as this memory is lockable. Raises PinningError."""
        if self._register is None:
            return
        try:
            self._register(buffer.data_ptr(), buffer.numel())
        except RuntimeError as error:
            raise PinningError(buffer.numel(), self.pinned_nbytes, str(error)) from error
        self._locked[buffer.data_ptr()] = buffer

    def release(self, buffer: Tensor) -> None:
        """Unlock a buffer from `allocate`. Copies from it must have finished."""
        if self._unregister is not None and buffer.data_ptr() in self._locked:
            self._unregister(buffer.data_ptr())
            del self._locked[buffer.data_ptr()]

    def close(self) -> None:
        _unlock_all(self._locked, self._unregister)


def _private_map(nbytes: int) -> mmap.mmap:
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, nbytes)


def _unlock_all(locked: dict[int, Tensor], unregister: Callable[[int], None] | None) -> None:
    for address in list(locked):
        if unregister is not None:
            unregister(address)
        del locked[address]


def pageable_memory() -> HostMemory:
    """For the CPU, where nothing is copied by a device, and for hosts that cannot lock memory."""
    return HostMemory(None, None)


def cuda_memory(device: torch.device) -> HostMemory:
    """Page-locked through the CUDA runtime, for `device`: through another one it would set that one up, too."""
    runtime: Any = torch.cuda.cudart()

    def call(function: Callable[..., Any], *arguments: int) -> None:
        with torch.cuda.device(device):
            code = function(*arguments)
            if int(code) != 0:
                _forget_last_error(device)
                raise RuntimeError(f"the CUDA runtime answered {code} ({int(code)})")

    return HostMemory(
        lambda address, nbytes: call(runtime.cudaHostRegister, address, nbytes, 0),
        lambda address: call(runtime.cudaHostUnregister, address),
    )


def _forget_last_error(device: torch.device) -> None:
    """The runtime keeps a thread's last error until somebody asks, and PyTorch asks after a kernel's launch: the
    next one, in a chunk that has nothing to do with it, would fail in its place."""
    with suppress(RuntimeError):
        torch.empty(1, device=device).fill_(1.0)
