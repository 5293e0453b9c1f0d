"""Published files -> a module, with nothing missing, nothing left over and nothing made up.

The module comes on the meta device. Every parameter and buffer of it is then either read from a file or
computed; anything else is one CheckpointError that lists the keys. Which layers are FP8 is decided by each
tensor's own type, because published files differ in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from scope_ltx.checkpoints.keys import KeyMap
from scope_ltx.checkpoints.reader import QUANTIZATION_SUFFIX, CheckpointFile
from scope_ltx.errors import CheckpointError
from scope_quant.capability import Fp8Path
from scope_quant.convert import Fp8Layer, convert_linears

_FP8 = "F8_E4M3"
_FLOATING = ("F64", "F32", "F16", "BF16")
_SCALES = ("weight_scale", "input_scale")
_TYPES = {"F8_E4M3": torch.float8_e4m3fn, "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}

M = TypeVar("M", bound=nn.Module)

_WRONG_FILE = "Use the file that plugin.toml names for this part; this one is another model's, or incomplete"


@dataclass(frozen=True)
class _Stored:
    """Where the module's tensor `name` is."""

    name: str
    file: CheckpointFile
    key: str

    @property
    def dtype(self) -> str:
        return self.file.dtypes[self.key]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.shapes[self.key]

    @property
    def layer(self) -> str:
        """The module's name of the layer that this tensor belongs to."""
        return self.name.rpartition(".")[0]


@dataclass
class _Problems:
    """What is wrong with a load, by kind: {problem: keys}. All of it goes into one error."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, problem: str, key: str) -> None:
        self.found.setdefault(problem, []).append(key)

    def raise_any(self, files: Sequence[CheckpointFile], advice: str) -> None:
        if not self.found:
            return
        *before, (last, keys) = self.found.items()
        told = [f"{problem}: {_listed(listed)}" for problem, listed in before]
        others = [file.path.name for file in files[1:]]
        together = f"(read together with {', '.join(others)}) " if others else ""
        raise CheckpointError(files[0].path, together + "; ".join([*told, last]), keys=keys, advice=advice)


class StoredModule(Generic[M]):
    """The files of one part, checked against its module, which is on the meta device.

    dtype     type of every floating tensor but FP8 weights (kept) and their scales (float32).
    fp8_path  how FP8 layers are computed; None for a part that has none.
    computed  {name: value} of tensors that no file holds. They keep their type.

    Making one converts the module's FP8 layers and gives each tensor its final type and shape, still without
    values: what a block will occupy is then known before anything is read.

    Raises CheckpointError, naming the first file, for keys that are missing, not expected, stored twice, of
    another shape or of a type that cannot be used, and for FP8 weights without a scale.
    """

    def __init__(
        self,
        module: M,
        files: Sequence[CheckpointFile],
        keymap: KeyMap,
        *,
        dtype: torch.dtype,
        fp8_path: Fp8Path | None = None,
        computed: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.module = module
        self._dtype = dtype
        self._computed = dict(computed or {})
        problems = _Problems()
        self._stored = _collect(files, keymap, problems)
        _convert_fp8(module, self._stored, fp8_path, problems)
        _compare(module, self._stored, self._computed, keymap, problems)
        problems.raise_any(files, _WRONG_FILE)
        for name, source in self._stored.items():
            _assign(module, name, torch.empty_like(_target(module, name), dtype=self._type(source)))
        module.eval().requires_grad_(False)

    def load(self, device: torch.device, *, later: Sequence[str] = (), on_host: Sequence[str] = ()) -> None:
        """Put values on `device`, but on the CPU for what lies under the module paths of `on_host`, and none
        for what lies under those of `later`.

        On the CPU a tensor that is stored in its final type is mapped, not copied.
        """

        def place(name: str) -> torch.device:
            return torch.device("cpu") if _under(name, on_host) else device

        for name, source in self._stored.items():
            if not _under(name, later):
                tensor = source.file.tensor(source.key).to(self._type(source))
                _assign(self.module, name, tensor.reshape(_target(self.module, name).shape).to(place(name)))
        for name, value in self._computed.items():
            _assign(self.module, name, value.to(place(name)))

    def read_into(self, name: str, target: Tensor, first_row: int = 0) -> None:
        """Rows `first_row...` of tensor `name`, in `target`'s shape, into `target` on whatever device."""
        source = self._stored[name]
        if target.is_cpu and target.dtype == _TYPES.get(source.dtype):
            source.file.read_into(source.key, target, first_row)
            return
        tensor = source.file.tensor(source.key)
        rows = tensor[first_row : first_row + len(target)] if target.ndim else tensor
        target.copy_(rows.reshape(target.shape))

    def read_under(self, path: str, name: str, target: Tensor) -> None:
        """`read_into` for tensor `name` of the submodule at `path`."""
        self.read_into(f"{path}.{name}", target)

    def _type(self, source: _Stored) -> torch.dtype:
        if source.dtype == _FP8:
            return torch.float8_e4m3fn
        return torch.float32 if source.name.rpartition(".")[2] in _SCALES else self._dtype


def load_module(
    module: nn.Module,
    files: Sequence[CheckpointFile],
    keymap: KeyMap,
    *,
    dtype: torch.dtype,
    device: torch.device,
    fp8_path: Fp8Path | None = None,
    computed: Mapping[str, Tensor] | None = None,
) -> None:
    """Fill `module`, which is on the meta device, from `files`: a `StoredModule` loaded at once."""
    StoredModule(module, files, keymap, dtype=dtype, fp8_path=fp8_path, computed=computed).load(device)
    require_materialized(module)


def require_materialized(module: nn.Module) -> None:
    """Raises RuntimeError naming what is still on the meta device, be it a parameter, buffer or attribute."""
    left = [name for name, tensor in _all_tensors(module) if tensor.is_meta]
    if left:
        raise RuntimeError(f"{type(module).__name__} has tensors without values: {_listed(left)}")


def _collect(files: Sequence[CheckpointFile], keymap: KeyMap, problems: _Problems) -> dict[str, _Stored]:
    """All of the files that belongs to this part, by the module's names, without quantization notes."""
    stored: dict[str, _Stored] = {}
    for file in files:
        for key in file.keys:
            name = keymap.to_module(key)
            if name is None or key.endswith(QUANTIZATION_SUFFIX):
                continue
            if name in stored:
                problems.add(f"keys that {stored[name].file.path.name} holds too", key)
            stored[name] = _Stored(name, file, key)
    return stored


def _convert_fp8(
    module: nn.Module, stored: Mapping[str, _Stored], path: Fp8Path | None, problems: _Problems
) -> None:
    """Turn the layers whose weight is float8 into FP8 layers, as far as nothing is wrong with them."""
    modules, known = dict(module.named_modules()), {name for name, _ in _registered(module)}
    layers: dict[str, Fp8Layer] = {}
    for source in stored.values():
        if source.dtype != _FP8 or source.name not in known:
            continue
        is_weight = source.name == f"{source.layer}.weight"
        if path is None or not is_weight or not isinstance(modules.get(source.layer), nn.Linear):
            problems.add("float8 tensors where none can be used", source.key)
        elif f"{source.layer}.weight_scale" not in stored:
            problems.add("float8 weights without a weight_scale", source.key)
        else:
            notes = source.file.quantization.get(source.key.rpartition(".")[0], {})
            layers[source.layer] = Fp8Layer(
                input_scale=f"{source.layer}.input_scale" in stored,
                full_precision_matrix_mult=bool(notes.get("full_precision_matrix_mult", False)),
            )
    if path is not None:
        convert_linears(module, layers, path)


def _compare(
    module: nn.Module,
    stored: Mapping[str, _Stored],
    computed: Mapping[str, Tensor],
    keymap: KeyMap,
    problems: _Problems,
) -> None:
    expected = {name: tensor for name, tensor in _registered(module) if name not in computed}
    for name in expected:
        if name not in stored:
            problems.add("missing keys", keymap.to_published(name))
    for name, source in stored.items():
        if name not in expected:
            problems.add("unexpected keys", source.key)
            continue
        want = tuple(expected[name].shape)
        if source.shape != want and not (want == () and source.shape == (1,)):
            problems.add("keys of the wrong shape", f"{source.key} {list(source.shape)}, expected {list(want)}")
        if source.dtype != _FP8 and source.dtype not in _FLOATING:
            problems.add("keys of a type that cannot be used", f"{source.key} {source.dtype}")


def _under(name: str, paths: Sequence[str]) -> bool:
    return name.startswith(tuple(f"{path}." for path in paths))


def _registered(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _all_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from _registered(module)
    for prefix, child in module.named_modules():
        for name, value in vars(child).items():
            if isinstance(value, Tensor):
                yield f"{prefix}.{name}".lstrip("."), value


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    parent, _, leaf = name.rpartition(".")
    return module.get_submodule(parent), leaf


def _target(module: nn.Module, name: str) -> Tensor:
    owner, leaf = _owner(module, name)
    target: Any = getattr(owner, leaf)
    return target  # type: ignore[no-any-return]


def _assign(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, leaf = _owner(module, name)
    is_parameter = isinstance(getattr(owner, leaf), nn.Parameter)
    setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)


def _listed(keys: Sequence[str]) -> str:
    more = len(keys) - CheckpointError.SHOWN
    return ", ".join(keys[: CheckpointError.SHOWN]) + (f" and {more} more" if more > 0 else "")
