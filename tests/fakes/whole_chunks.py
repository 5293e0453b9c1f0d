"""For fakes that make a chunk in one go: `generate` is all they need to define."""

from __future__ import annotations

from concurrent.futures import Future

from scope_ltx.request import Chunk, ChunkRequest


class WholeChunks:
    def submit(self, request: ChunkRequest) -> Future[Chunk]:
        chunk: Future[Chunk] = Future()
        chunk.set_result(self.generate(request))
        return chunk

    def close(self) -> None:
        pass

    def generate(self, request: ChunkRequest) -> Chunk:
        raise NotImplementedError
