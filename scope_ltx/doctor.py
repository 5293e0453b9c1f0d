"""Whether this machine can run, and with what: `scope-ltx doctor`.

Everything that can fail is looked at and reported; nothing is downloaded or loaded.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from scope_ltx.manifest import FileStatus, survey

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
class Report:
    """What was found. `problems` are sentences, each with what to do; none means ready to run."""

    python: str
    system: str
    versions: dict[str, str | None]
    device: DeviceReport | None
    model: str | None
    files: tuple[FileStatus, ...]
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
        problems.append(f"{count}: {names}; published in {repos}")
    return Report(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        versions=versions,
        device=None if isinstance(device, str) else device,
        model=None if isinstance(directory, str) else str(directory),
        files=files,
        problems=tuple(problems),
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
    published = file.published.bytes
    compared = "the published size" if file.nbytes == published else f"the published one has {published:,}"
    return f"  present     {file.published.path} ({file.nbytes:,} bytes, {compared})"
