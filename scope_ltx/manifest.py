"""plugin.toml as typed objects, and the files of a model as paths.

Knows names, places and published sizes, and what is known of each catalogued LoRA. Opens no model file and
imports no torch.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scope_ltx.errors import CheckpointError

Role = Literal["transformer", "text_projection", "text_encoder", "video_vae", "audio_vae"]
ControlRole = Literal["depth", "pose", "person_detector"]
LoraKind = Literal["standard", "audio_video", "in_context", "identity", "distillation"]
Checkpoint = Literal["distilled", "dev", "dev+distilled-lora"]
PromptForm = Literal["free", "scene", "token", "two_part", "channels", "edit"]
ReferenceKind = Literal["none", "control", "tracks", "sheet", "clip", "masked_clip", "letterbox"]

ROLES: tuple[Role, ...] = ("transformer", "text_projection", "text_encoder", "video_vae", "audio_vae")

COMPLETE_ROLES: tuple[Role, ...] = ("transformer", "text_projection", "video_vae", "audio_vae")
"""The parts that Lightricks' complete checkpoints hold."""
COMPLETE_DIRECTORY = "checkpoints"
"""Where a complete checkpoint lies below a model directory: the only .safetensors file in there, of any name."""

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Commit = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]


class _Facts(BaseModel):
    """A table of plugin.toml: read once, never changed, no key unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ScopeFacts(_Facts):
    """The `[plugin.scope]` table: how the Daydream Scope host finds the plugin.

    entry_point: the module of the entry point in group `scope`.
    pipeline_factory: "module:function", the function returns the pipeline class.
    models_directory: where the host puts the model files below its models directory.
    """

    entry_point: str
    pipeline_factory: str = Field(pattern="^[a-z_.]+:[a-z_]+$")
    minimum_host_version: str
    models_directory: str
    modes: tuple[Literal["text", "video"], ...] = Field(min_length=1)


class PluginFacts(_Facts):
    """The `[plugin]` table: what a host or a person reads before any code runs."""

    id: str
    name: str
    description: str
    package: str
    version: str
    estimated_vram_gb: float = Field(gt=0)
    sample_rate: int = Field(gt=0)
    homepage: str
    model_license: str
    text_encoder_license: str
    scope: ScopeFacts


class RemoteFile(_Facts):
    """A file to download. `path` is below a model directory, size and hash are as published.

    repo_path: its path in the repository where that is another one.
    """

    path: str
    repo: str
    repo_path: str | None = None
    bytes: int = Field(gt=0)
    sha256: _Sha256 | None = None


class PublishedFile(RemoteFile):
    """One `[[files]]` table: a file that every model needs."""

    role: Role


class ControlModel(_Facts):
    """One `[[control_models]]` table: a transformers model that draws control signals.

    `path` is its directory below a model directory.
    """

    role: ControlRole
    path: str
    repo: str
    files: tuple[str, ...] = Field(min_length=1)


class Strength(_Facts):
    """LoRA strengths. `low..high` is where it is known to work, `stacked` what to use beside other LoRAs.

    The defaults are the usual range of Lightricks' LoRA guide.
    """

    recommended: float = Field(default=1.0, gt=0)
    low: float = Field(default=0.8, gt=0)
    high: float = Field(default=1.2, gt=0)
    stacked: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.recommended <= self.high:
            raise ValueError(
                f"expected low <= recommended <= high, got {self.low}, {self.recommended}, {self.high}"
            )
        return self


class PromptFacts(_Facts):
    """What the prompt must look like. `hint` tells a person what to write."""

    form: PromptForm
    hint: str
    token: str | None = None
    negative: str | None = None
    quoted_dialogue: Literal["fine", "avoid"] = "fine"

    @model_validator(mode="after")
    def _token_with_its_form(self) -> Self:
        if (self.form == "token") != (self.token is not None):
            raise ValueError(f"form 'token' and a token come together, got {self.form!r} and {self.token!r}")
        return self


class Preparation(_Facts):
    """What to give besides the prompt. `steps` tells a person, the other fields tell the program.

    reference: what the reference video is; `none` means there is none.
    control_groups: for `control`, the signals that the LoRA knows; one at a time.
    mask: for `masked_clip`, how the mask is painted (scope_ltx.control.inpaint).
    pin_strength: of the first frame, where it is given.
    """

    reference: ReferenceKind
    steps: str
    control_groups: tuple[Literal["canny", "depth", "pose"], ...] = ()
    mask: Literal["blocks", "fill"] | None = None
    first_frame: Literal["none", "optional", "required"] = "none"
    pin_strength: float | None = Field(default=None, gt=0, le=1)
    reference_audio: bool = False
    min_frames: int | None = Field(default=None, ge=9)
    size_multiple: int = Field(default=32, ge=32)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.reference == "control") != bool(self.control_groups):
            raise ValueError(f"reference {self.reference!r} does not go with control_groups {self.control_groups}")
        if (self.reference == "masked_clip") != (self.mask is not None):
            raise ValueError(f"reference {self.reference!r} does not go with mask {self.mask!r}")
        return self


class TrainedClip(_Facts):
    """The size, length and rate a LoRA was trained at, where that is published."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    num_frames: int = Field(gt=0)
    frame_rate: float = Field(gt=0)


class LoraSampling(_Facts):
    """Sampling that a LoRA's card asks for on the dev checkpoint."""

    num_steps: int = Field(gt=0)
    guidance_scale: float = Field(ge=1)
    stg_scale: float = Field(ge=0)
    stg_mode: str
    stg_block: int = Field(ge=0)


class Lora(_Facts):
    """One `[[loras]]` table: all that is known of a LoRA before its file is opened.

    repo_path: the file's path in its repository where it is not at the root.
    base: checkpoints it works on, the recommended one first.
    reference_downscale_factor: of an in-context LoRA; the file's own metadata overrides it.
    stages: 2 where the LoRA is made for two-stage sampling.
    unverified: fields whose values no readable source confirms.
    """

    id: str = Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")
    name: str
    file: str = Field(pattern=r"^[^/\\]+\.safetensors$")
    repo: str = Field(pattern="^[^/ ]+/[^/ ]+$")
    repo_path: str | None = None
    kind: LoraKind
    purpose: str
    base: tuple[Checkpoint, ...] = Field(min_length=1)
    trained_on: Literal["ltx-2.3-22b", "ltx-2-19b"] = "ltx-2.3-22b"
    rank: int | None = Field(default=None, gt=0)
    bytes: int | None = Field(default=None, gt=0)
    sha256: _Sha256 | None = None
    reference_downscale_factor: int | None = Field(default=None, ge=1)
    strength: Strength = Strength()
    prompt: PromptFacts
    preparation: Preparation
    stages: Literal[1, 2] = 1
    sampling: LoraSampling | None = None
    trained_clip: TrainedClip | None = None
    unverified: tuple[str, ...] = ()
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.kind == "in_context") != (self.reference_downscale_factor is not None):
            raise ValueError(
                f"{self.id}: a reference_downscale_factor belongs to an in-context LoRA, "
                f"got {self.reference_downscale_factor} with kind {self.kind!r}"
            )
        if (self.kind == "in_context") != (self.preparation.reference != "none"):
            raise ValueError(
                f"{self.id}: kind {self.kind!r} does not go with reference {self.preparation.reference!r}"
            )
        for name in self.unverified:
            if not _has_field(self, name):
                raise ValueError(f"{self.id}: unverified names {name!r}, which is no field")
        return self

    @property
    def trained_for(self) -> Literal["distilled", "dev"] | None:
        """The only model it works with, None for either. The distillation LoRA makes dev count as distilled."""
        if self.kind == "distillation":
            return None
        if "dev" not in self.base:
            return "distilled"
        return "dev" if self.base == ("dev",) else None

    def is_unverified(self, name: str) -> bool:
        """Whether the value of a field (dotted for a nested one) is marked as unconfirmed."""
        return name in self.unverified


class Manifest(_Facts):
    """All of plugin.toml. upsampler: only for two stages. revisions: {repository: commit known to be good}."""

    plugin: PluginFacts
    files: tuple[PublishedFile, ...]
    upsampler: RemoteFile
    control_models: tuple[ControlModel, ...] = ()
    revisions: dict[str, _Commit] = {}
    loras: tuple[Lora, ...] = ()

    @model_validator(mode="after")
    def _no_lora_twice(self) -> Self:
        for what, names in (
            ("id", [lora.id for lora in self.loras]),
            ("file", [lora.file for lora in self.loras]),
        ):
            doubled = sorted({name for name in names if names.count(name) > 1})
            if doubled:
                raise ValueError(f"two LoRAs have the same {what}: {', '.join(doubled)}")
        return self

    def file(self, role: Role) -> PublishedFile:
        """The file of a role. Raises ValueError unless there is exactly one."""
        found = [file for file in self.files if file.role == role]
        if len(found) != 1:
            raise ValueError(f"plugin.toml must list one file for the role {role!r}, it lists {len(found)}")
        return found[0]

    def artifacts(self) -> dict[str, list[str]]:
        """{repository: paths in it} of what every user needs: the list for a host's own downloader."""
        repos = dict.fromkeys(file.repo for file in self.files)
        return {repo: [file.repo_path or file.path for file in self.files if file.repo == repo] for repo in repos}

    def control_model(self, role: ControlRole) -> ControlModel:
        """The control model of a role. Raises ValueError unless there is exactly one."""
        found = [model for model in self.control_models if model.role == role]
        if len(found) != 1:
            raise ValueError(
                f"plugin.toml must list one control model for the role {role!r}, it lists {len(found)}"
            )
        return found[0]


def manifest_path() -> Path:
    """plugin.toml: beside the package in an installed wheel, else in the repository's root."""
    package = Path(__file__).parent
    inside = package / "plugin.toml"
    return inside if inside.is_file() else package.parent / "plugin.toml"


def load_manifest(path: Path | None = None) -> Manifest:
    """Read plugin.toml, the product's own unless `path` is given. Raises ValidationError naming the entry."""
    with (path or manifest_path()).open("rb") as file:
        return Manifest.model_validate(tomllib.load(file))


@dataclass(frozen=True)
class FileStatus:
    """One model file as found: `nbytes` is None when it is not there."""

    role: Role
    path: Path
    nbytes: int | None
    published: PublishedFile


@dataclass(frozen=True)
class ModelFiles:
    """Where the files of one model are. Up to four of them may be one and the same: a complete checkpoint.

    upsampler: where it belongs, whether or not it is there.
    """

    directory: Path
    transformer: Path
    text_projection: Path
    text_encoder: Path
    video_vae: Path
    audio_vae: Path
    upsampler: Path

    @classmethod
    def below(cls, directory: Path) -> ModelFiles:
        """Where the files belong below `directory`, whether or not they are there."""
        return cls._of(directory, {role: directory / load_manifest().file(role).path for role in ROLES})

    @classmethod
    def in_directory(cls, directory: Path) -> ModelFiles:
        """The files of a complete model directory: published split files, and the one file in `checkpoints/` for
        what is not there of them.

        Raises CheckpointError listing what is missing, and for several files to choose from.
        """
        if not directory.is_dir():
            problem = "is a file, not a model directory" if directory.exists() else "no such model directory"
            raise CheckpointError(directory, problem, advice=_advice(directory))
        found = survey(directory)
        missing = [file for file in found if file.nbytes is None]
        complete = complete_checkpoints(directory)
        if len(complete) > 1 and any(file.role in COMPLETE_ROLES for file in missing):
            names = [path.name for path in complete]
            advice = "Leave the one to use, and move the others out of it"
            raise CheckpointError(directory / COMPLETE_DIRECTORY, "holds several files", keys=names, advice=advice)
        if missing:
            names, count = [file.published.path for file in missing], f"{len(missing)} of {len(ROLES)}"
            problem = f"{count} model files are missing"
            raise CheckpointError(directory, problem, keys=names, advice=_advice(directory))
        return cls._of(directory, {file.role: file.path for file in found})

    @classmethod
    def _of(cls, directory: Path, paths: Mapping[str, Path]) -> ModelFiles:
        return cls(directory=directory, upsampler=directory / load_manifest().upsampler.path, **paths)


def complete_checkpoints(directory: Path) -> list[Path]:
    """The files that may each stand for the four of COMPLETE_ROLES."""
    return sorted(path for path in (directory / COMPLETE_DIRECTORY).glob("*.safetensors") if path.is_file())


def survey(directory: Path) -> tuple[FileStatus, ...]:
    """Every model file with its size or its absence; never raises for what is not there."""
    manifest = load_manifest()
    complete = complete_checkpoints(directory)
    found = []
    for role in ROLES:
        published = manifest.file(role)
        path = directory / published.path
        if not path.is_file() and role in COMPLETE_ROLES and len(complete) == 1:
            path = complete[0]
            shown = {"path": f"{COMPLETE_DIRECTORY}/{path.name}", "bytes": path.stat().st_size, "sha256": None}
            published = published.model_copy(update=shown)
        found.append(FileStatus(role, path, path.stat().st_size if path.is_file() else None, published))
    return tuple(found)


def _has_field(facts: BaseModel, dotted: str) -> bool:
    name, _, rest = dotted.partition(".")
    if name not in type(facts).model_fields:
        return False
    value = getattr(facts, name)
    return not rest or (isinstance(value, BaseModel) and _has_field(value, rest))


def _advice(directory: Path) -> str:
    return (
        f"Run `scope-ltx download --model {shlex.quote(str(directory))}`, let `scope-ltx doctor` say what belongs "
        f"where, put a complete checkpoint into {COMPLETE_DIRECTORY}/ instead of all but the text encoder, or use "
        "`--model small`, which needs no download"
    )
