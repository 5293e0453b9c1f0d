"""The tensors of one file, read at any time after it was checked, without trusting that it stays as it was."""

from __future__ import annotations

import io
import os
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scope_ltx.checkpoints.header import FETCH_AGAIN, read_header
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.lora.errors import LoraError

TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
"""What a LoRA may be stored in, by the format's names."""

_WHERE = "Check the path, and that the file can be read"


@dataclass(frozen=True)
class FileIdentity:
    """What makes a file the same one as before."""

    path: Path
    nbytes: int
    mtime_ns: int


class TensorSource:
    """A file held open by its descriptor, and read from several threads.

    Not through a memory map: a running stream reads these tensors again when a strength changes. Reading a mapped
    file that was cut off meanwhile kills the process; here a file that was replaced or deleted goes on being
    read as it was, and one that was written to is an error.

    Raises LoraError for all that CheckpointFile refuses.
    """

    def __init__(self, path: Path) -> None:
        try:
            # The library's own checks of the header; ours are read again, from the file that is kept open.
            CheckpointFile(path)
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, self._descriptor)
            header = read_header(path)
            replaced = not os.path.samestat(path.stat(), os.fstat(self._descriptor))
        except CheckpointError as error:
            # Another model directory is not where a LoRA would be found.
            advice = _WHERE if "does not exist" in error.problem else error.advice
            raise LoraError(path, error.problem, keys=error.keys, advice=advice) from error
        except (OverflowError, RecursionError) as error:
            # Numbers without end and brackets without end are JSON too.
            raise LoraError(path, f"has a damaged header: {error}", advice=FETCH_AGAIN) from error
        except OSError as error:
            raise LoraError(path, f"cannot be opened: {error.strerror}", advice=_WHERE) from error
        if replaced:
            raise LoraError(path, "was replaced while it was opened", advice="Open it again")
        self._lock = threading.Lock()
        self._tensors, self._start = header.tensors, header.nbytes
        self.path = path
        self.metadata = header.metadata
        self.identity = self._identity()

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._tensors)

    def dtype(self, key: str) -> str:
        return self._tensors[key].dtype

    def shape(self, key: str) -> tuple[int, ...]:
        return self._tensors[key].shape

    def tensor(self, key: str) -> Tensor:
        """A copy, on the CPU and in the file's type. Raises LoraError when the file was written to."""
        entry = self._tensors[key]
        tensor = torch.empty(entry.shape, dtype=TYPES[entry.dtype])
        data: memoryview = tensor.view(-1).view(torch.uint8).numpy().data
        try:
            with self._lock, io.FileIO(self._descriptor, closefd=False) as file:
                file.seek(self._start + entry.start)
                while data and (count := file.readinto(data)):
                    data = data[count:]
        except OSError as error:
            raise LoraError(self.path, f"cannot be read: {error.strerror}", keys=[key], advice=_WHERE) from error
        if data or self._identity() != self.identity:
            raise LoraError(self.path, "was written to after it was opened", keys=[key], advice=FETCH_AGAIN)
        return tensor

    def _identity(self) -> FileIdentity:
        found = os.fstat(self._descriptor)
        return FileIdentity(self.path.absolute(), found.st_size, found.st_mtime_ns)
