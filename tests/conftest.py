"""Fixtures that more than one test file needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A shared machine stalls for longer than any deadline; a failure prints how to have it again.
settings.register_profile("scope-ltx", deadline=None, print_blob=True)
settings.load_profile("scope-ltx")


@pytest.fixture(scope="session")
def small_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, written once for the whole session. Read it; tests that damage files work on a copy."""
    from scope_ltx.models.small import ensure_small_model  # noqa: PLC0415 - not for tests without a model

    return ensure_small_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def untrained_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with weights that are laid out by hand, for what must hold whatever a model has learnt."""
    from scope_ltx.models.small import ensure_untrained_model  # noqa: PLC0415 - not for tests without a model

    return ensure_untrained_model(tmp_path_factory.mktemp("untrained"))
