"""The `scope-ltx` command through its own entry point, with a fake behind it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from scope_ltx import cli
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.config import LTX2Config
from scope_ltx.engine import EngineOptions
from scope_ltx.hosts.live.options import HostOptions
from scope_ltx.manifest import ModelFiles, load_manifest
from scope_ltx.sound_in.track import TrackEnded
from scope_streaming.media.segment import Segment
from tests.fakes.cli_backend import FakeBackend, FakeStream, complete_directory
from tests.fakes.monolith import write_monolith
from tests.fakes.published import PublishedFiles, write_published
from training.world.grammar import parse

COMMANDS = ("serve", "generate", "download", "doctor", "inspect", "loras", "quantize")
SMALL_CLIP = ("--set", "num_frames=9", "--set", "height=64", "--set", "width=32")


def run(*arguments: str | Path, backend: FakeBackend | None = None) -> Result:
    result = CliRunner().invoke(cli.main, [str(part) for part in arguments], obj=backend or FakeBackend())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.alone
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
        for command in COMMANDS:
            assert f"  {command} " in done.stdout
    assert min(taken_s) < 0.5


@pytest.mark.parametrize("command", COMMANDS)
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
    assert backend.stream.closed
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
    assert backend.stream.closed
    assert list(tmp_path.iterdir()) == []


@dataclass
class EndingStream(FakeStream):
    """Its driving track ends after `chunks`."""

    chunks: int = 0

    def next_segment(self) -> Segment:
        if self.made == self.chunks:
            raise TrackEnded("song.wav has ended after 0.75 s")
        return super().next_segment()


@dataclass
class EndingBackend(FakeBackend):
    chunks: int = 0

    def open_session(self, generator: object, config: LTX2Config, prompt: str) -> FakeStream:
        return EndingStream(config, chunks=self.chunks)


def test_a_track_that_ends_ends_the_clip(tmp_path: Path) -> None:
    backend = EndingBackend(chunks=2)
    result = run(
        "generate", "--prompt", "x", "--chunks", "5", "-o", tmp_path / "c.mp4", "--dump-npz", tmp_path / "c.npz",
        *SMALL_CLIP, backend=backend,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "18 frames of 32x64 in 0.750 s" in result.stdout
    assert result.stderr.count("note: song.wav has ended after 0.75 s, and the clip with it") == 1
    assert backend.closed == 1
    with np.load(tmp_path / "c.npz") as arrays:
        assert len(arrays["frames"]) == 18


def test_a_track_without_a_single_chunk_is_an_error(tmp_path: Path) -> None:
    result = run(
        "generate", "--prompt", "x", "-o", tmp_path / "c.mp4", *SMALL_CLIP, backend=EndingBackend(chunks=0)
    )
    assert result.exit_code == 2
    assert "Error: song.wav has ended after 0.75 s" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("--set", "num_steps=21"),
            "Error: num_steps: at most 20 steps, only the dev schedule takes more, got 21",
        ),
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
        (
            ("--set", 'loras=[{"path": "sync", "strength": 99}]'),
            "Error: loras[0].strength: Input should be less than or equal to 10, got 99",
        ),
        (("--set", 'loras=[{"file": "sync"}]'), "Error: loras[0].path: Field required, got {'file': 'sync'}"),
        (("--set", 'images=[{"path": "a.png", "frame_idx": 5}]'), "a pinned frame must be 0 or a multiple of 8"),
        (
            ("--set", "control_group=lines"),
            "Error: control_group: Input should be 'none', 'canny', 'depth' or 'pose'",
        ),
        (("--set", "continuity=extends"), "Error: continuity: Input should be 'cut' or 'extend'"),
        (("--set", "audio_at_end=fade"), "Error: audio_at_end: Input should be 'loop', 'silence' or 'stop'"),
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


MODES = """
i2v_image = "first.png"
i2v_strength = 0.9
reference_video = "clip.mp4"
control_group = "canny"
control_strength = 0.8
audio_input = "song.wav"
audio_at_end = "stop"
continuity = "extend"
overlap_latents = 3
trim_tail = 8
two_stage = true
height = 128
width = 128
num_frames = 33
[[images]]
path = "last.png"
frame_idx = 16
[[loras]]
path = "union-control"
[[loras]]
path = "loras/mine.safetensors"
strength = 0.5
"""


def test_every_mode_is_reached_by_a_file_and_by_assignments(tmp_path: Path) -> None:
    file = tmp_path / "modes.toml"
    file.write_text(MODES)
    backend = FakeBackend()
    result = run(
        "generate", "--prompt", "x", "-o", tmp_path / "c.mp4", "--config", file,
        "--set", 'images=[{"path": "b.png", "frame_idx": 8, "strength": 0.5}]', "--set", "audio_mode=id_lora",
        "--set", "cfg_scale=4", "--set", "stg_blocks=[3]", "--set", "negative_prompt=fog", backend=backend,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    config = backend.config
    assert config is not None
    assert [(lora.path, lora.strength) for lora in config.loras] == [
        ("union-control", None),
        ("loras/mine.safetensors", 0.5),
    ]
    assert [(pin.path, pin.frame_idx, pin.strength) for pin in config.images] == [("b.png", 8, 0.5)]
    assert (config.i2v_image, config.reference_video, config.audio_input) == ("first.png", "clip.mp4", "song.wav")
    assert (config.audio_mode, config.audio_at_end, config.continuity) == ("id_lora", "stop", "extend")
    assert (config.two_stage, config.trim_tail, config.overlap_latents) == (True, 8, 3)
    assert (config.cfg_scale, config.stg_blocks, config.negative_prompt) == (4.0, (3,), "fog")


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
        "engine": EngineOptions(), "options": HostOptions(),
    }  # fmt: skip
    assert "note: height 390 became 384" in result.stderr


def test_without_a_prompt_a_stream_begins_with_what_its_model_can_draw() -> None:
    class Published(FakeBackend):
        def model_directory(self, model: str) -> Path:
            return Path(model)

    small, other = FakeBackend(), Published()
    assert run("serve", backend=small).exit_code == 0
    scene = parse(str(small.served["prompt"]))
    assert [(one.size, one.colour, one.shape) for one in scene.objects] == [
        ("large", "red", "circle"),
        ("medium", "blue", "star"),
    ]
    assert run("serve", "--model", "models", backend=other).exit_code == 0
    with pytest.raises(ValueError, match="names none of"):
        parse(str(other.served["prompt"]))


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


def test_doctor_tells_of_parts_that_one_mode_needs(tmp_path: Path) -> None:
    directory = complete_directory(tmp_path)
    backend = FakeBackend(small=directory)
    manifest = load_manifest()
    upsampler, (depth, pose, detector) = manifest.upsampler, manifest.control_models
    text = run("doctor", backend=backend).stdout
    needed = f"{upsampler.path}: needed for two_stage alone, published in Lightricks/LTX-2.3"
    assert f"  optional    {needed}\n" in text
    assert f"  optional    {depth.path}: needed for control_group depth alone" in text
    assert f"  optional    {detector.path}: needed for control_group pose alone" in text
    assert text.endswith("ready\n")
    for path in (upsampler.path, *(f"{pose.path}/{name}" for name in pose.files)):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).touch()
    report = json.loads(run("doctor", "--json", backend=backend).stdout)
    assert {part["path"]: part["present"] for part in report["optional"]} == {
        upsampler.path: True, depth.path: False, pose.path: True, detector.path: False,
    }  # fmt: skip
    assert f"  present     {pose.path}\n" in run("doctor", backend=backend).stdout


def test_doctor_lists_the_loras_that_are_there(tmp_path: Path) -> None:
    directory = complete_directory(tmp_path)
    loras = directory / "loras"
    loras.mkdir()
    (loras / "mine.safetensors").write_bytes(b"123")
    (loras / "LTX2.3-IC-LORA-Dual-Character.safetensors").write_bytes(b"1234567")
    elsewhere = directory / "more"
    elsewhere.mkdir()
    (elsewhere / "ltx-2.3-sync-lora-3d1t-r256.safetensors").write_bytes(b"1")
    backend = FakeBackend(small=directory)
    text = run("doctor", backend=backend).stdout
    assert "  lora        sync: ltx-2.3-sync-lora-3d1t-r256.safetensors (1 bytes)\n" in text
    dual = "dual-character: LTX2.3-IC-LORA-Dual-Character.safetensors (7 bytes, the published one has 327,287,347)"
    assert dual in text
    assert "  lora        not in the catalog: mine.safetensors (3 bytes)\n" in text
    assert text.endswith("ready\n")
    report = json.loads(run("doctor", "--json", backend=backend).stdout)
    assert [(lora["id"], lora["nbytes"]) for lora in report["loras"]] == [
        ("sync", 1),
        ("dual-character", 7),
        (None, 3),
    ]


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


def test_loras_lists_the_catalog(tmp_path: Path) -> None:
    table = run("loras")
    assert table.exit_code == 0
    rows = table.stdout.splitlines()
    listed = load_manifest().loras
    assert sum(any(lora.id in row.split() for row in rows) for lora in listed) == len(listed)
    assert not any(row.startswith(("+", "!")) for row in rows)
    assert "+ is below" not in table.stdout
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "ltx-2.3-sync-lora-3d1t-r256.safetensors").write_bytes(b"1")
    marked = run("loras", "--model", tmp_path).stdout.splitlines()
    assert [row.split()[1] for row in marked if row.startswith("+") and "below" not in row] == ["sync"]
    small = run("loras", "--model", "small", backend=FakeBackend(small=tmp_path)).stdout.splitlines()
    assert small == marked


@pytest.mark.parametrize("name", ["union-control", "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors"])
def test_loras_tells_all_of_one(tmp_path: Path, name: str) -> None:
    card = run("loras", name, "--model", tmp_path)
    assert card.exit_code == 0
    assert card.stdout.startswith("Union Control: Structure from edges")
    assert "  kind       in-context, rank 64\n" in card.stdout
    assert f"  download   scope-ltx download --only-loras --lora union-control --model {tmp_path}\n" in card.stdout


UNION = "ltx-2.3-22b-ic-lora-union-control-ref0.5.safetensors"


def test_loras_as_json(tmp_path: Path) -> None:
    every = json.loads(run("loras", "--json").stdout)
    assert [entry["id"] for entry in every] == [lora.id for lora in load_manifest().loras]
    assert {entry["present"] for entry in every} == {None}
    (tmp_path / UNION).write_bytes(b"1")
    one = json.loads(run("loras", "union-control", "--json", "--model", tmp_path).stdout)
    assert one["reference_downscale_factor"] == 2
    assert one["present"] == str(tmp_path / UNION)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("union",), "Error: no LoRA in the catalog is called 'union': did you mean union-control?"),
        (("zzz",), "Error: no LoRA in the catalog is called 'zzz': known are union-control,"),
        (("--model", "/none"), "Error: /none is no directory: give --model a directory, or `small`"),
    ],
)
def test_loras_that_are_not_known(arguments: tuple[str, ...], told: str) -> None:
    result = run("loras", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedFiles:
    return write_published(tmp_path_factory.mktemp("published"), fp8=False)


@pytest.fixture(scope="module")
def monolith(published: PublishedFiles) -> Path:
    return write_monolith(published.directory / "ltx-2.3-22b-dev.safetensors", published)


def test_quantize_writes_the_split_files(monolith: Path, tmp_path: Path) -> None:
    arguments = ("quantize", monolith, tmp_path / "out", "--keep-blocks", "0, 2", "--device", "cpu")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    layout = ModelFiles.below(tmp_path / "out")
    assert f"wrote    {layout.transformer}" in result.stdout
    assert f"missing  {layout.text_encoder}: not part of that checkpoint" in result.stdout
    assert "28 layers in FP8" in result.stdout
    # The bar is on stderr, and only on a terminal does it move.
    assert "quantizing" in result.stderr
    assert "wrote" not in result.stderr
    assert len(CheckpointFile(layout.transformer).quantization) == 28
    again = run(*arguments)
    assert again.exit_code == 2
    assert "exists already. Name another directory, or ask for it to be replaced (--overwrite)" in again.stderr
    assert run(*arguments, "--overwrite").exit_code == 0
    assert len(CheckpointFile(layout.transformer).quantization) == 28


def test_quantize_checks_everything_before_it_writes(published: PublishedFiles, tmp_path: Path) -> None:
    def damage(state: dict[str, object], _config: object) -> None:
        for key in [key for key in state if key.startswith("vocoder.")][:1]:
            del state[key]

    broken = write_monolith(tmp_path / "dev.safetensors", published, damage)
    result = run("quantize", broken, tmp_path / "out", "--keep-blocks", "0", "--device", "cpu")
    assert result.exit_code == 2
    assert "missing keys" in result.stderr
    assert "quantizing" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--keep-blocks", "first"), "expected block numbers such as 0,1,46,47, or none, got 'first'"),
        (("--keep-blocks", "7"), "Error: blocks to keep must be within 0..2, got 7"),
        (("--keep-blocks", "0,1,2"), "Error: keeping 3 of 3 blocks leaves none to quantize"),
        (("--device", "tpu"), "Error: device 'tpu' is not there"),
    ],
)
def test_quantize_mistakes(monolith: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    result = run("quantize", monolith, tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not (tmp_path / "out").exists()


def test_quantize_refuses_what_it_cannot_read_or_write(monolith: Path, tmp_path: Path) -> None:
    absent = run("quantize", tmp_path / "none.safetensors", tmp_path / "out", "--device", "cpu")
    assert absent.exit_code == 2
    assert "none.safetensors: the file does not exist" in absent.stderr
    taken = tmp_path / "taken"
    taken.touch()
    blocked = run("quantize", monolith, taken, "--keep-blocks", "none", "--device", "cpu")
    assert blocked.exit_code == 2
    assert "cannot be made a directory" in blocked.stderr
