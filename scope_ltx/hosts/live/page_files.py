"""The page's own files over HTTP."""

from __future__ import annotations

from collections.abc import MutableMapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.staticfiles import StaticFiles

PAGE = Path(__file__).parent / "page"


class PageFiles(StaticFiles):
    """The page, checked for a newer version at every load: modules of two versions do not fit together."""

    async def get_response(self, path: str, scope: MutableMapping[str, Any]) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        # Windows may have another type for .js in its registry, and no browser runs a module of that.
        if path.endswith(".js") and response.status_code == HTTPStatus.OK:
            response.headers["Content-Type"] = "text/javascript; charset=utf-8"
        return response


def page_paths() -> list[str]:
    """The page's own files, as a browser asks for them."""
    return ["/", *(f"/{path.relative_to(PAGE).as_posix()}" for path in PAGE.rglob("*") if path.is_file())]
