"""A complete checkpoint in one file, and each part of it as if it were a file of its own.

Lightricks' dev and distilled files hold everything but the text encoder, each part below a prefix. The published
split files hold the same tensors, one file per part, under the same names but for the video VAE's, which lose
their prefix there. A part of a complete file is shown under the names of its split file and with its settings,
so that whatever opens the one opens the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from torch import Tensor

from scope_ltx.checkpoints.header import FETCH_AGAIN
from scope_ltx.checkpoints.keys import DIFFUSION_PREFIX
from scope_ltx.checkpoints.reader import CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_ltx.manifest import Role

SPLIT_PREFIXES: Mapping[Role, Mapping[str, str]] = {
    "transformer": {f"{DIFFUSION_PREFIX}.": f"{DIFFUSION_PREFIX}."},
    "text_projection": {"text_embedding_projection.": "text_embedding_projection."},
    "video_vae": {"vae.": ""},
    "audio_vae": {"audio_vae.": "audio_vae.", "vocoder.": "vocoder."},
}
"""{role: {prefix in the complete file: what stands for it in the split file}}."""

SECTIONS: Mapping[Role, tuple[str, ...]] = {
    "transformer": ("transformer",),
    "text_projection": (),
    "video_vae": ("vae",),
    "audio_vae": ("audio_vae", "vocoder"),
}
"""Sections of the settings that the split file of a role carries."""

ORIGIN = "quantized_from"
"""Metadata entry: the name of the file that a quantized one was made from."""

Base: TypeAlias = Literal["distilled", "dev"]

_PART_NAMES: Mapping[Role, str] = {
    "transformer": "transformer",
    "text_projection": "text projection",
    "text_encoder": "text encoder",
    "video_vae": "video VAE",
    "audio_vae": "audio VAE and vocoder",
}


class CheckpointPart(CheckpointFile):
    """Some tensors of an open file, under other names and with other metadata. Its `path` is the file's."""

    def __init__(self, whole: CheckpointFile, keys: Mapping[str, str], metadata: Mapping[str, str]) -> None:
        """`keys` is {name shown here: name in `whole`}."""
        # Everything that the base class would open is open in `whole`.
        self.path = whole.path
        self.metadata = metadata
        self.shapes = {shown: whole.shapes[stored] for shown, stored in keys.items()}
        self.dtypes = {shown: whole.dtypes[stored] for shown, stored in keys.items()}
        self._whole = whole
        self._stored = dict(keys)

    def tensor(self, key: str) -> Tensor:
        return self._whole.tensor(self._stored[key])

    def read_into(self, key: str, target: Tensor, first_row: int = 0) -> None:
        self._whole.read_into(self._stored[key], target, first_row)


def roles_in(file: CheckpointFile) -> tuple[Role, ...]:
    """The parts that a file has prefixed keys of. A complete checkpoint has more than one; so has only that."""
    return tuple(
        role
        for role, prefixes in SPLIT_PREFIXES.items()
        if any(key.startswith(tuple(prefixes)) for key in file.keys)
    )


class MonolithicCheckpoint:
    """A complete checkpoint: `roles` are the parts it holds.

    Raises CheckpointError for keys that belong to no part: they would be read by nobody.
    """

    def __init__(self, file: CheckpointFile) -> None:
        prefixes = tuple(prefix for known in SPLIT_PREFIXES.values() for prefix in known)
        strangers = [key for key in file.keys if not key.startswith(prefixes)]
        if strangers:
            problem = f"holds keys that belong to no part of LTX-2.3 (known are {', '.join(prefixes)})"
            advice = "Use Lightricks' file as published, or the split files that plugin.toml names"
            raise CheckpointError(file.path, problem, keys=strangers, advice=advice)
        self.file = file
        self.roles = roles_in(file)

    def part(self, role: Role) -> CheckpointFile:
        """One part, as its split file would be. Raises CheckpointError if the file does not hold it, and for
        settings that are not JSON."""
        if role not in self.roles:
            held = ", ".join(_PART_NAMES[one] for one in self.roles)
            advice = "Name the file that plugin.toml lists for this part; text encoders are separate always"
            if role != "text_encoder":
                advice = f"Use Lightricks' file as published. {FETCH_AGAIN}"
            raise CheckpointError(self.file.path, f"holds no {_PART_NAMES[role]}, only {held}", advice=advice)
        keys = {
            split + key.removeprefix(prefix): key
            for key in self.file.keys
            for prefix, split in SPLIT_PREFIXES[role].items()
            if key.startswith(prefix)
        }
        return CheckpointPart(self.file, keys, self._metadata(role))

    def _metadata(self, role: Role) -> dict[str, str]:
        metadata = {name: entry for name, entry in self.file.metadata.items() if name != "config"}
        if SECTIONS[role]:
            settings = self.file.config()
            kept = {name: settings[name] for name in SECTIONS[role] if name in settings}
            metadata["config"] = json.dumps(kept)
        return metadata


def open_part(path: Path, role: Role) -> CheckpointFile:
    """The file of a role: `path` itself, or that part of it if it is a complete checkpoint.

    Raises CheckpointError for a file that is missing or damaged, and for a complete checkpoint that does not hold
    the part, or holds keys of no part.
    """
    file = CheckpointFile(path)
    if len(roles_in(file)) < 2:
        return file
    return MonolithicCheckpoint(file).part(role)


def base_of(file: CheckpointFile) -> Base | None:
    """Which of the two models a checkpoint is, told from its name, or from that of the file it was quantized from.

    The two have the same tensors and settings: nothing but a name tells them apart. None where the name tells
    neither or both.
    """
    name = file.metadata.get(ORIGIN, file.path.name).lower()
    told = [base for base in ("distilled", "dev") if base in name.replace(".", "-").replace("_", "-").split("-")]
    match told:
        case ["distilled"]:
            return "distilled"
        case ["dev"]:
            return "dev"
    return None
