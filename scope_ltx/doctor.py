"""Whether this machine can run, and with what: `scope-ltx doctor`.

Everything that can fail is looked at and reported; nothing is downloaded or loaded.
"""

from __future__ import annotations

import platform
import shlex
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from scope_ltx.catalog import LORA_DIRECTORY, find_files, load_catalog
from scope_ltx.manifest import FileStatus, load_manifest, survey

PACKAGES = ("scope-ltx", "torch", "diffusers", "transformers", "safetensors", "sentencepiece", "av", "aiortc")


@dataclass(frozen=True)
class DeviceReport:
    """The device that `--device` means here. `fp8_path` is how FP8 weights are multiplied on it."""

    name: str
    description: str
    memory_nbytes: int | None
    fp8_path: str
    fp8_reason: str


@dataclass(frozen=True)
class OptionalPart:
    """Something that one mode alone needs, at its place or not. Its absence is no problem."""

    path: str
    present: bool
    needed_for: str
    repo: str


@dataclass(frozen=True)
class LoraStatus:
    """A LoRA file as found. `id` is None for one that the catalog does not list."""

    id: str | None
    path: Path
    nbytes: int
    published_nbytes: int | None


@dataclass(frozen=True)
class Report:
    """What was found. `problems` are sentences, each with what to do; none means ready to run."""

    python: str
    system: str
    versions: dict[str, str | None]
    device: DeviceReport | None
    model: str | None
    files: tuple[FileStatus, ...]
    optional: tuple[OptionalPart, ...]
    loras: tuple[LoraStatus, ...]
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": not self.problems,
            "python": self.python,
            "system": self.system,
            "versions": self.versions,
            "device": asdict(self.device) if self.device else None,
            "model": self.model,
            "files": [
                {
                    "role": file.role,
                    "path": str(file.path),
                    "bytes": file.nbytes,
                    "published_bytes": file.published.bytes,
                }
                for file in self.files
            ],
            "optional": [asdict(part) for part in self.optional],
            "loras": [{**asdict(lora), "path": str(lora.path)} for lora in self.loras],
            "problems": list(self.problems),
        }

    def as_text(self) -> str:
        lines = [f"python        {self.python} on {self.system}"]
        lines += [f"{name:<14}{version or 'not installed'}" for name, version in self.versions.items()]
        if self.device:
            nbytes = self.device.memory_nbytes
            memory = "" if nbytes is None else f", {nbytes / 2**30:.1f} GiB"
            lines.append(f"device        {self.device.name} ({self.device.description}{memory})")
            lines.append(f"fp8           {self.device.fp8_path}: {self.device.fp8_reason}")
        if self.model:
            lines.append(f"model         {self.model}")
        lines += [_file_line(file) for file in self.files]
        lines += [_optional_line(part) for part in self.optional]
        lines += [_lora_line(lora) for lora in self.loras]
        lines += [f"problem       {problem}" for problem in self.problems]
        lines.append("ready" if not self.problems else f"{len(self.problems)} problem(s) found")
        return "\n".join(lines)


def examine(directory: Path | str, device: DeviceReport | str) -> Report:
    """The report on a model directory and a device; a sentence in the place of either is a problem to report."""
    versions = {name: _version(name) for name in PACKAGES}
    absent = [name for name, version in versions.items() if version is None]
    problems = [f"{name} is not installed: run `pip install {name}`" for name in absent]
    if isinstance(device, str):
        problems.append(device)
    files = () if isinstance(directory, str) else survey(directory)
    if isinstance(directory, str):
        problems.append(directory)
    elif not directory.is_dir():
        problems.append(f"{directory} is no directory: give --model a directory, or `small`")
    elif missing := [file.published for file in files if file.nbytes is None]:
        repos = ", ".join(sorted({file.repo for file in missing}))
        names = ", ".join(file.path for file in missing)
        count = f"{len(missing)} model files are missing below {directory}"
        command = f"run `scope-ltx download --model {shlex.quote(str(directory))}`"
        problems.append(f"{count}: {names}; published in {repos}: {command}")
    return Report(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        versions=versions,
        device=None if isinstance(device, str) else device,
        model=None if isinstance(directory, str) else str(directory),
        files=files,
        optional=() if isinstance(directory, str) else survey_optional(directory),
        loras=() if isinstance(directory, str) else survey_loras(directory),
        problems=tuple(problems),
    )


def survey_optional(directory: Path) -> tuple[OptionalPart, ...]:
    """The latent upsampler, and the models that draw control signals."""
    manifest = load_manifest()
    upsampler = manifest.upsampler
    drawing = {
        "depth": "control_group depth",
        "pose": "control_group pose",
        "person_detector": "control_group pose",
    }
    return (
        OptionalPart(upsampler.path, (directory / upsampler.path).is_file(), "two_stage", upsampler.repo),
        *(
            OptionalPart(
                model.path,
                all((directory / model.path / name).is_file() for name in model.files),
                drawing[model.role],
                model.repo,
            )
            for model in manifest.control_models
        ),
    )


def survey_loras(directory: Path) -> tuple[LoraStatus, ...]:
    """The catalog's LoRAs that are somewhere below a model directory, then what else lies among the LoRAs."""
    catalog = load_catalog()
    found = find_files(catalog.loras, directory)
    listed = [
        LoraStatus(lora.id, path, path.stat().st_size, lora.bytes)
        for lora in catalog.loras
        if (path := found.get(lora.id))
    ]
    others = sorted((directory / LORA_DIRECTORY).rglob("*.safetensors"))
    return (
        *listed,
        *(
            LoraStatus(None, path, path.stat().st_size, None)
            for path in others
            if path.is_file() and not catalog.get(path)
        ),
    )


def probe_device(name: str) -> DeviceReport | str:
    """Look at the device that `name` (auto, cpu, cuda, cuda:N) means; a sentence when there is none."""
    try:
        import torch  # noqa: PLC0415 - heavy, and its absence is a finding

        from scope_ltx.pipeline import resolve_device  # noqa: PLC0415
        from scope_quant.capability import probe_fp8  # noqa: PLC0415

        device = resolve_device(name)
        support = probe_fp8(device)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return f"device {name} cannot be used: {error}"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        description, memory = properties.name, properties.total_memory
    else:
        description, memory = platform.processor() or platform.machine(), None
    return DeviceReport(str(device), description, memory, str(support.path.value), support.reason)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _file_line(file: FileStatus) -> str:
    if file.nbytes is None:
        return f"  missing     {file.published.path}"
    return f"  present     {file.published.path} ({_compared(file.nbytes, file.published.bytes)})"


def _optional_line(part: OptionalPart) -> str:
    if part.present:
        return f"  present     {part.path}"
    return f"  optional    {part.path}: needed for {part.needed_for} alone, published in {part.repo}"


def _lora_line(lora: LoraStatus) -> str:
    name = lora.id or "not in the catalog"
    return f"  lora        {name}: {lora.path.name} ({_compared(lora.nbytes, lora.published_nbytes)})"


def _compared(nbytes: int, published: int | None) -> str:
    if published is None:
        return f"{nbytes:,} bytes"
    told = "the published size" if nbytes == published else f"the published one has {published:,}"
    return f"{nbytes:,} bytes, {told}"
