"""Which LoRAs there are: those of the catalog, and files below the model directory."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from pydantic import BaseModel

from scope_ltx.catalog import LORA_DIRECTORY, download_command, find_files, load_catalog
from scope_ltx.manifest import Lora


class ListedLora(BaseModel):
    """A LoRA of the catalog. `path` is its file on the server; where there is none, `download` gets it."""

    facts: Lora
    path: Path | None
    download: str | None


class LoraList(BaseModel):
    """`files` are LoRAs on the server that the catalog does not list."""

    loras: tuple[ListedLora, ...]
    files: tuple[Path, ...]


def loras_router(models: Path | None) -> APIRouter:
    """GET /api/loras. `models` is the model directory; None: no file is looked for."""
    router = APIRouter(prefix="/api", tags=["control"])
    catalog = load_catalog()

    @router.get("/loras")
    def loras() -> LoraList:
        """The catalog: strengths, prompt forms, what to prepare, and which files are there."""
        found = {} if models is None else find_files(catalog.loras, models)
        listed = []
        for lora in catalog.loras:
            path = found.get(lora.id)
            command = download_command(lora, models) if models is not None and path is None else None
            listed.append(ListedLora(facts=lora, path=path, download=command))
        others = set() if models is None else set((models / LORA_DIRECTORY).rglob("*.safetensors"))
        return LoraList(loras=tuple(listed), files=tuple(sorted(others - set(found.values()))))

    return router
