"""Requests made from our own OpenAPI description, good and bad ones, against a server process: no answer is a 5xx,
and each is one that the description tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from scope_ltx.hosts.live.webrtc.offers import SDP
from scope_ltx.hosts.live.webrtc.trickle import SDP_FRAGMENT
from tests.fakes.live_app import app_of
from tests.fakes.network_viewer import Server, running_server

EXAMPLES = int(os.environ.get("SCOPE_LTX_FUZZ_EXAMPLES", "12"))
"""Of each of some 25 operations."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

schemathesis.serializer.alias([SDP, SDP_FRAGMENT], "text/plain")
description = schemathesis.openapi.from_dict(
    app_of(uploads=Path("uploads"), recordings=Path("recordings")).openapi()
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fuzz")
    options = ("--height", "64", "--width", "320", "--frames", "9")
    with running_server(*options, "--uploads", str(folder / "u"), "--recordings", str(folder / "r")) as running:
        yield running


@description.parametrize()
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_no_request_makes_the_server_fail(case: Case, server: Server) -> None:
    case.call_and_validate(base_url=server.url.rstrip("/"), checks=CHECKS)
