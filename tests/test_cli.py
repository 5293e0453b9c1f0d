"""The `scope-ltx` command through its own entry point, with a fake behind it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from scope_ltx import cli
from scope_ltx.engine import EngineOptions
from scope_ltx.manifest import ModelFiles
from tests.fakes.cli_backend import FakeBackend, complete_directory

SMALL_CLIP = ("--set", "num_frames=9", "--set", "height=64", "--set", "width=32")


def run(*arguments: str | Path, backend: FakeBackend | None = None) -> Result:
    result = CliRunner().invoke(cli.main, [str(part) for part in arguments], obj=backend or FakeBackend())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_help_is_fast_and_light() -> None:
    program = (
        "import sys; from scope_ltx.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = [name for name in ('torch', 'numpy', 'pydantic', 'av') if name in sys.modules]\n"
        "print('heavy:', heavy)"
    )
    taken_s = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        taken_s.append(time.perf_counter() - started)
        assert "heavy: []" in done.stdout
        for command in ("serve", "generate", "doctor", "inspect"):
            assert f"  {command} " in done.stdout
    assert min(taken_s) < 0.5


@pytest.mark.parametrize("command", ["serve", "generate", "doctor", "inspect"])
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_generate_writes_the_clip_and_the_dump(tmp_path: Path) -> None:
    output, dump = tmp_path / "out.mp4", tmp_path / "out.npz"
    backend = FakeBackend()
    result = run(
        "generate", "--model", "small", "--prompt", "a red ball", "--chunks", "2", "--seed", "7",
        "--dump-npz", dump, "-o", output, *SMALL_CLIP, backend=backend,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "18 frames of 32x64 in 0.750 s at 24 fps, made in 2.0 s (0.38x real time)" in result.stdout
    assert backend.closed == 1
    assert backend.config is not None
    assert backend.config.base_seed == 7
    with av.open(str(output)) as container:
        assert len(list(container.decode(video=0))) == 18
    with np.load(dump) as arrays:
        assert arrays["frames"].shape == (18, 64, 32, 3)
        assert arrays["frames"].dtype == np.uint8
        assert arrays["samples"].shape == (2, 36_000)
        assert arrays["frame_ticks"].tolist() == [i * 30_000 for i in range(18)]
        assert arrays["sample_rate"] == 48_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "out.npz"]


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    dumps = []
    for name in ("a", "b"):
        dump = tmp_path / f"{name}.npz"
        result = run("generate", "--prompt", "x", "-o", tmp_path / "c.mp4", "--dump-npz", dump, *SMALL_CLIP)
        assert result.exit_code == 0
        dumps.append(dump.read_bytes())
    assert dumps[0] == dumps[1]


def test_snapped_values_are_told_once_and_not_on_stdout(tmp_path: Path) -> None:
    result = run(
        "generate", "--prompt", "x", "--chunks", "2", "-o", tmp_path / "c.mp4",
        "--set", "num_frames=10", "--set", "height=64", "--set", "width=32",
    )  # fmt: skip
    assert result.stderr.count("note: num_frames 10 became 9: it must be 8K + 1") == 1
    assert "note" not in result.stdout


def test_a_chunk_that_fails_leaves_no_clip_and_closes_the_model(tmp_path: Path) -> None:
    backend = FakeBackend(fail_at=1)
    result = run(
        "generate", "--prompt", "x", "--chunks", "2", "-o", tmp_path / "c.mp4", *SMALL_CLIP, backend=backend
    )
    assert result.exit_code == 2
    assert "Error: transformer.safetensors: went away. Put it back" in result.stderr
    assert backend.closed == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "num_steps=99"), "Error: num_steps: Input should be less than or equal to 20, got 99"),
        (("--set", "frame_rate=NaN"), "Error: frame_rate: Input should be a finite number, got nan"),
        (("--set", "speed=2"), "Error: speed: there is no such parameter"),
        (("--set", "speed"), "Error: expected name=value, got 'speed'"),
        (("--seed", "-1"), "Error: base_seed: Input should be greater than or equal to 0, got -1"),
        (("--config", "none.toml"), "Error: none.toml: cannot be read: No such file or directory"),
        (("--model", "/none"), "Error: /none: no such model directory. Use `--model small`"),
        (("--device", "tpu"), "Error: device 'tpu' is not there"),
        (("-o", "/none/c.mp4"), "Error: /none/c.mp4: the directory /none does not exist"),
        (("-o", "c.avi"), "Error: c.avi: the name must end in .mp4"),
        (("--dump-npz", "c.npy"), "Error: c.npy: the name must end in .npz"),
        (("--chunks", "0"), "0 is not in the range x>=1"),
        (("--prompt", "  "), "Invalid value for '--prompt': the prompt is empty"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(tmp_path: Path, arguments: tuple[str, str], told: str) -> None:
    result = run("generate", "--prompt", "x", "-o", tmp_path / "c.mp4", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_serve_gets_what_was_asked(tmp_path: Path) -> None:
    file = tmp_path / "stream.toml"
    file.write_text("height = 390\nnum_steps = 4\n")
    backend = FakeBackend()
    result = run(
        "serve", "--config", file, "--set", "num_steps=6", "--port", "9000", "--prompt", "rain", backend=backend
    )
    assert result.exit_code == 0
    config = backend.served.pop("config")
    assert (config.height, config.num_steps) == (384, 6)  # type: ignore[attr-defined]
    assert backend.served == {
        "directory": Path("models/small"), "prompt": "rain", "host": "127.0.0.1", "port": 9000, "device": "auto",
        "engine": EngineOptions(),
    }  # fmt: skip
    assert "note: height 390 became 384" in result.stderr


def test_serve_refuses_a_model_that_is_not_there() -> None:
    backend = FakeBackend()
    result = run("serve", "--model", "/none", backend=backend)
    assert result.exit_code == 2
    assert "Error: /none: no such model directory" in result.stderr
    assert backend.served == {}


def test_an_address_in_use_is_told_without_a_traceback() -> None:
    class Busy(FakeBackend):
        def serve(self, *arguments: object, **named: object) -> None:
            raise OSError(98, "cannot listen on 127.0.0.1 port 8000: Address already in use")

    result = run("serve", backend=Busy())
    assert result.exit_code == 2
    assert result.stderr == "Error: cannot listen on 127.0.0.1 port 8000: Address already in use\n"


def test_doctor_is_content_with_the_small_model(tmp_path: Path) -> None:
    result = run("doctor", backend=FakeBackend(small=complete_directory(tmp_path)))
    assert result.exit_code == 0
    assert result.stdout.count("  present ") == 5
    assert "fp8           dequantize: cpu has no float8 unit" in result.stdout
    assert result.stdout.endswith("ready\n")


def test_doctor_lists_files_and_fails_for_missing_ones(tmp_path: Path) -> None:
    files = ModelFiles.below(tmp_path)
    files.video_vae.parent.mkdir()
    files.video_vae.write_bytes(b"12345")
    result = run("doctor", "--model", tmp_path, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert report["device"]["fp8_path"] == "dequantize"
    assert report["versions"]["torch"]
    assert {file["role"]: file["bytes"] for file in report["files"]} == {
        "transformer": None, "text_projection": None, "text_encoder": None, "video_vae": 5, "audio_vae": None,
    }  # fmt: skip
    (problem,) = report["problems"]
    assert problem.startswith(f"4 model files are missing below {tmp_path}: diffusion_models/")
    text = run("doctor", "--model", tmp_path).stdout
    assert (
        "present     vae/LTX23_video_vae_bf16.safetensors (5 bytes, the published one has 1,452,258,578)" in text
    )
    assert "missing     diffusion_models/" in text
    assert text.endswith("1 problem(s) found\n")


def test_doctor_reports_a_small_model_that_cannot_be_written() -> None:
    class ReadOnly(FakeBackend):
        def model_directory(self, model: str) -> Path:
            raise PermissionError(13, "Permission denied", "/cache")

    result = run("doctor", backend=ReadOnly())
    assert result.exit_code == 1
    assert "problem       the small model cannot be written: /cache: Permission denied" in result.stdout


def test_doctor_reports_a_device_that_cannot_be_used(tmp_path: Path) -> None:
    small = complete_directory(tmp_path)
    result = run("doctor", backend=FakeBackend(device="device cuda cannot be used: no driver", small=small))
    assert result.exit_code == 1
    assert "problem       device cuda cannot be used: no driver" in result.stdout


def test_inspect_prints_text_and_json(tmp_path: Path) -> None:
    header = b'{"spiece_model": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"abc")
    text = run("inspect", path)
    assert text.exit_code == 0
    assert "kind        tokenizer" in text.stdout
    assert json.loads(run("inspect", path, "--json").stdout)["tensors"] == 1
    path.write_bytes(b"<html>")
    refused = run("inspect", path)
    assert refused.exit_code == 2
    assert "is a web page" in refused.stderr


def test_memory_and_acceleration_reach_the_engine(tmp_path: Path) -> None:
    backend = FakeBackend()
    options = ("--vram-budget-gb", "7.5", "--pageable", "--acceleration", "graphs")
    result = run("generate", "--prompt", "rain", "-o", tmp_path / "a.mp4", *options, backend=backend)
    assert result.exit_code == 0, result.output
    assert backend.engine == EngineOptions(7.5, pageable=True, acceleration="graphs")
    result = run("serve", *options, backend=backend)
    assert backend.served["engine"] == backend.engine


@pytest.mark.parametrize("command", [["serve"], ["generate", "--prompt", "a", "-o", "a.mp4"]])
def test_modes_that_are_not_built_are_refused_before_anything_is_loaded(command: list[str]) -> None:
    backend = FakeBackend()
    result = run(*command, "--set", "i2v_image=a.png", backend=backend)
    assert result.exit_code == 2
    assert result.output.startswith("Error: i2v_image is not supported by this version")


@pytest.mark.parametrize(
    ("budget", "said"), [("-1", "must be a number above 0 GiB, got -1"), ("1", "1.00 GiB is too little")]
)
def test_a_budget_that_cannot_work_is_one_message(tmp_path: Path, budget: str, said: str) -> None:
    backend = FakeBackend()
    result = run(
        "generate", "--prompt", "a", "-o", tmp_path / "a.mp4", "--vram-budget-gb", budget, backend=backend
    )
    assert result.exit_code == 2
    assert said in result.output
