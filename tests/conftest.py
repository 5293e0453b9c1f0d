"""Fixtures that more than one test file needs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import settings

# A shared machine stalls for longer than any deadline; a failure prints how to have it again. The examples are the
# same in every run, so that a change is judged by what it changes; `make fuzz` looks for new ones.
settings.register_profile("scope-ltx", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("scope-ltx")


@pytest.fixture(scope="session")
def small_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, written once for the whole session. Read it; tests that damage files work on a copy."""
    from scope_ltx.models.small import ensure_small_model  # noqa: PLC0415 - not for tests without a model

    return ensure_small_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def used_mdns() -> list[threading.local]:
    """Kept to the end: a test that ends while a browser is connecting may leave a socket in one, which the
    collector would report in the middle of another test."""
    return []


@pytest.fixture(autouse=True)
def own_mdns(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, used_mdns: list[threading.local]
) -> None:
    """aioice keeps one mDNS socket and lock for a thread, and so for the event loop that first had to wait for the
    lock; test modules have loops of their own. A browser names itself by mDNS."""
    if request.node.get_closest_marker("browser") is not None:
        used_mdns.append(threading.local())
        monkeypatch.setattr("aioice.ice._mdns", used_mdns[-1])
