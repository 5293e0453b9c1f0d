"""Streaming for models whose `forward` is not ours: blocks fetch and release their weights by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from scope_streaming.weights.streamer import BlockStreamer


class StreamedForward:
    """Hooks on `blocks`, in the streamer's order. `close` removes these hooks and no others."""

    def __init__(self, streamer: BlockStreamer, blocks: Sequence[nn.Module]) -> None:
        if len(blocks) != len(streamer):
            raise ValueError(f"the streamer has {len(streamer)} blocks, hooks were asked for {len(blocks)}")
        self._handles: list[RemovableHandle] = []
        for index, block in enumerate(blocks):
            self._handles.append(block.register_forward_pre_hook(_acquire(streamer, index)))
            # Also after an exception inside the block: its slot must not stay in use.
            self._handles.append(block.register_forward_hook(_release(streamer, index), always_call=True))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _acquire(streamer: BlockStreamer, index: int) -> Any:
    def hook(module: nn.Module, inputs: Any) -> None:
        streamer.acquire(index)

    return hook


def _release(streamer: BlockStreamer, index: int) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        streamer.release(index)

    return hook
