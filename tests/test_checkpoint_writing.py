"""Model files are written whole or not at all, whatever stops the writing."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file

from scope_ltx.checkpoints.quantize.command import quantized_parts
from scope_ltx.checkpoints.quantize.view import quantized_view
from scope_ltx.checkpoints.quantize.writing import CheckpointWriteError, write_files
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import ModelFiles
from tests.fakes.monolith import CPU, KEEP, files_in, quantize, write_monolith
from tests.fakes.published import PublishedFiles, write_published

BLOCK = "model.diffusion_model.transformer_blocks"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedFiles:
    return write_published(tmp_path_factory.mktemp("published"), fp8=False)


@pytest.fixture(scope="module")
def monolith(published: PublishedFiles) -> Path:
    return write_monolith(published.directory / "ltx-2.3-22b-dev.safetensors", published)


def test_same_bytes_every_time_and_in_pieces(monolith: Path, tmp_path: Path) -> None:
    quantize(monolith, tmp_path / "one")
    quantize(monolith, tmp_path / "two")
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")
    parts = quantized_parts(monolith, keep_blocks=KEEP, device=CPU)
    write_files({tmp_path / "pieces": parts["transformer"]}, piece_nbytes=1000)
    assert (tmp_path / "pieces").read_bytes() == ModelFiles.below(tmp_path / "one").transformer.read_bytes()


def test_nothing_is_replaced_unless_asked(monolith: Path, tmp_path: Path) -> None:
    quantize(monolith, tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(CheckpointWriteError, match=r"fp8_scaled\.safetensors: exists already\. .*\(--overwrite\)"):
        quantize(monolith, tmp_path, keep_blocks=(0, 1))
    assert files_in(tmp_path) == before
    quantize(monolith, tmp_path, keep_blocks=(0, 1), overwrite=True)
    after = files_in(tmp_path)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {str(ModelFiles.below(tmp_path).transformer.relative_to(tmp_path))}


def test_the_source_is_never_replaced(published: PublishedFiles, tmp_path: Path) -> None:
    target = ModelFiles.below(tmp_path).transformer
    target.parent.mkdir(parents=True)
    target.write_bytes(published.files.transformer.read_bytes())
    with pytest.raises(CheckpointWriteError, match="is the file to quantize"):
        quantize(target, tmp_path, overwrite=True)
    assert target.read_bytes() == published.files.transformer.read_bytes()


def test_a_draft_that_is_there_already(monolith: Path, tmp_path: Path) -> None:
    target = ModelFiles.below(tmp_path).video_vae
    draft = target.with_name(target.name + ".partial")
    draft.parent.mkdir(parents=True)
    draft.write_bytes(b"another process")
    with pytest.raises(CheckpointWriteError, match=r"\.partial: is there already\. .* one was killed: delete"):
        quantize(monolith, tmp_path)
    assert list(files_in(tmp_path).values()) == [b"another process"]


@pytest.mark.parametrize("stop_at", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interruption_leaves_what_was_there(
    error: type[BaseException], stop_at: float, monolith: Path, tmp_path: Path
) -> None:
    told: list[int] = []

    def stop(_: Path, done: int, total: int) -> None:
        told.append(done)
        if done >= stop_at * total:
            raise error("stop")

    old = ModelFiles.below(tmp_path).audio_vae
    old.parent.mkdir(parents=True)
    old.write_bytes(b"older")
    with pytest.raises(error, match="stop"):
        quantize(monolith, tmp_path, overwrite=True, progress=stop)
    assert told
    assert files_in(tmp_path) == {str(old.relative_to(tmp_path)): b"older"}


def test_progress_reaches_the_total_file_by_file(monolith: Path, tmp_path: Path) -> None:
    told: list[tuple[Path, int, int]] = []
    report = quantize(monolith, tmp_path, progress=lambda *told_now: told.append(told_now))
    counts = [done for _, done, _ in told]
    assert counts == sorted(counts)
    assert {total for _, _, total in told} == {counts[-1]} == {report.nbytes}
    assert list(dict.fromkeys(path for path, _, _ in told)) == list(report.files.values())


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(monolith: Path, tmp_path: Path) -> None:
    parts = quantized_parts(monolith, keep_blocks=KEEP, device=CPU)
    files = {tmp_path / "a" / "one": parts["transformer"], tmp_path / "b" / "two": parts["video_vae"]}
    need = write_files({tmp_path / str(place): part for place, part in enumerate(files.values())})
    with pytest.raises(CheckpointWriteError) as caught:
        write_files(files, free_nbytes=lambda _: need - 1)
    assert f"has too little space: {need:,} bytes are needed, {need - 1:,} are free. Free some" in str(
        caught.value
    )
    assert not any(path.exists() for path in files)
    write_files(files, free_nbytes=lambda _: need)
    assert all(path.exists() for path in files)


def test_one_tensor_is_held_at_a_time(tmp_path: Path) -> None:
    """192 MiB of weights pass through: read, quantized and written, without being held or mapped."""
    path = tmp_path / "wide.safetensors"
    state = {f"{BLOCK}.{block}.ff.net.2.weight": torch.ones(2048, 2048).bfloat16() for block in range(24)}
    save_file(state, path)
    del state
    view = quantized_view(CheckpointFile(path), keep_blocks=range(12))
    process = psutil.Process()
    before, held = process.memory_full_info().uss, [0]
    write_files(
        {tmp_path / "out": view},
        progress=lambda *_: held.append(process.memory_full_info().uss - before),
    )
    # A weight is 8 MiB in bfloat16 and 16 in float32; the allocator keeps some of what was freed.
    assert max(held) < 128 * 2**20


class FullDisk(io.FileIO):
    """Takes `room` bytes, then fails as a full disk does."""

    room = 5000

    def write(self, data: Any, /) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = super().write(memoryview(data)[: self.room]) or 0
        self.room -= taken
        return taken


def test_a_disk_that_fills_up_while_writing(published: PublishedFiles, tmp_path: Path) -> None:
    view = quantized_view(CheckpointFile(published.files.transformer), keep_blocks=KEEP)
    path = tmp_path / "one.safetensors"
    with pytest.raises(CheckpointWriteError, match=r"cannot be written, after .* bytes: No space left on"):
        write_files({path: view}, create=lambda partial: FullDisk(partial, "xb"))
    assert files_in(tmp_path) == {}


def test_a_place_that_cannot_be_written(monolith: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file")
    with pytest.raises(CheckpointWriteError, match="cannot be made a directory: "):
        quantize(monolith, tmp_path / "out")

    def refuse(partial: Path) -> io.FileIO:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(partial))

    view = quantized_parts(monolith, keep_blocks=KEEP, device=CPU)["video_vae"]
    with pytest.raises(CheckpointWriteError, match="after 0 bytes: Permission denied"):
        write_files({tmp_path / "one": view}, create=refuse)


def test_unknown_types_are_named(published: PublishedFiles, tmp_path: Path) -> None:
    file = CheckpointFile(published.files.video_vae)
    file.dtypes = {**file.dtypes, "encoder.conv_in.conv.bias": "F4_E2M1"}
    with pytest.raises(CheckpointError, match=r"type that cannot be copied: encoder\.conv_in\.conv\.bias F4_E2M1"):
        write_files({tmp_path / "one": file})
