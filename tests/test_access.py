"""Who may ask the live host for what: token, origin, host name, and the files that a request can name."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from scope_ltx import cli
from scope_ltx.catalog import load_catalog
from scope_ltx.config import LTX2Config
from scope_ltx.hosts.live.control.allowed_paths import AllowedPaths, ForbiddenPathError
from scope_ltx.hosts.live.http.access import AccessPolicy, is_loopback
from scope_ltx.hosts.live.options import HostOptions
from tests.fakes.cli_backend import FakeBackend
from tests.fakes.live_app import SDP, app_of, assert_problem, serving

TOKEN = "a-token-of-enough-characters"
BEARER = {"authorization": f"Bearer {TOKEN}"}
ELSEWHERE = "https://studio.example"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "studio.local"])
def test_a_host_that_others_reach_demands_a_token(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValueError, match=r"give it a token, such as --token \S{32}"):
        AccessPolicy.of(host, None, ())
    assert AccessPolicy.of(host, TOKEN, ()).token == TOKEN
    result = CliRunner().invoke(cli.main, ["serve", "--host", host], obj=(backend := FakeBackend()))
    assert (result.exit_code, backend.served) == (2, {})
    assert "give it a token" in result.output


def test_options_reach_the_host(tmp_path: Path) -> None:
    backend = FakeBackend()
    arguments = [
        "serve", "--host", "0.0.0.0", "--allow-origin", ELSEWHERE, "--max-viewers", "3",
        "--media-dir", str(tmp_path), "--upload-dir", str(tmp_path / "up"), "--record-dir", str(tmp_path / "rec"),
    ]  # fmt: skip
    result = CliRunner().invoke(cli.main, arguments, obj=backend, env={"SCOPE_LTX_TOKEN": TOKEN})
    assert result.exit_code == 0, result.output
    wanted = HostOptions(TOKEN, (ELSEWHERE,), 3, tmp_path / "up", (tmp_path,), tmp_path / "rec")
    assert backend.served["options"] == wanted
    assert TOKEN not in repr(wanted)
    missing = CliRunner().invoke(cli.main, ["serve", "--media-dir", str(tmp_path / "no")], obj=backend)
    assert missing.exit_code == 2
    assert "there is no such directory" in missing.output


@pytest.mark.parametrize("token", ["short", "with spaces in between it", "ünïcödé-characters-here"])
def test_a_token_that_is_weak_or_no_header_value_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="at least 16 characters"):
        AccessPolicy.of("127.0.0.1", token, ())


@pytest.mark.parametrize("origin", ["studio.example", "https://studio.example/page", "ftp://x", ""])
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="an origin looks like"):
        AccessPolicy.of("127.0.0.1", None, [origin])


async def test_everything_but_the_page_and_health_asks_for_the_token() -> None:
    app = app_of(access=AccessPolicy.of("0.0.0.0", TOKEN, ()))
    async with serving(app) as client:
        for path in ("/", "/app.js", "/style.css", "/healthz"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/readyz")).status_code in (200, 503)
        schema = (await client.get("/openapi.json", headers=BEARER)).json()
        asked = 0
        for path, methods in schema["paths"].items():
            if path in ("/healthz", "/readyz"):
                continue
            for method in methods:
                refused = await client.request(method, path.replace("{", "").replace("}", ""))
                assert refused.status_code == 401
                if method != "head":
                    assert_problem(refused, 401, "the token is missing or wrong")
                assert refused.headers["www-authenticate"].startswith("Bearer")
                asked += 1
        assert asked >= 8
        for wrong in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"):
            headers = [(b"authorization", wrong.encode("latin-1"))]
            assert (await client.get("/api/status", headers=headers)).status_code == 401
        assert (await client.get("/api/status", headers=BEARER)).status_code == 200
        assert (await client.post("/", headers={})).status_code == 401


async def test_pages_of_other_origins_are_shut_out_by_default() -> None:
    elsewhere = {"origin": ELSEWHERE}
    async with serving(app_of()) as client:
        refused = await client.patch("/api/parameters", json={"num_steps": 4}, headers=elsewhere)
        assert_problem(refused, 403, ELSEWHERE, "--allow-origin")
        assert (await client.post("/whep", content="v=0", headers={**SDP, **elsewhere})).status_code == 403
        for answer in (
            refused,
            await client.get("/api/status", headers=elsewhere),
            await client.options("/whep", headers={**elsewhere, "access-control-request-method": "POST"}),
            await client.options("/api/prompt", headers={**elsewhere, "access-control-request-method": "POST"}),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")], answer.headers
        own = await client.patch("/api/parameters", json={"num_steps": 4}, headers={"origin": "http://live"})
        assert own.status_code == 200


@pytest.mark.parametrize("allowed", [ELSEWHERE, "*"])
async def test_an_origin_that_the_operator_names_may_do_everything(allowed: str) -> None:
    app = app_of(access=AccessPolicy(origins=frozenset({allowed})))
    async with serving(app) as client:
        asking = {"origin": ELSEWHERE, "access-control-request-method": "PATCH"}
        preflight = await client.options("/api/parameters", headers=asking)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == ELSEWHERE
        assert "PATCH" in preflight.headers["access-control-allow-methods"]
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        changed = await client.patch("/api/parameters", json={"num_steps": 4}, headers={"origin": ELSEWHERE})
        assert changed.status_code == 200
        assert changed.headers["access-control-allow-origin"] == ELSEWHERE
        assert "Location" in changed.headers["access-control-expose-headers"]
        assert changed.headers["vary"] == "Origin"


async def test_without_a_token_the_host_answers_to_loopback_names_alone() -> None:
    app = app_of(access=AccessPolicy.of("127.0.0.1", None, ()))
    async with serving(app) as client:
        for name in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"):
            assert (await client.get("/api/status", headers={"host": name})).status_code == 200
        for name in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
            assert_problem(await client.get("/api/status", headers={"host": name}), 421, "localhost")


def paths_of(root: Path, named: LTX2Config | None = None) -> AllowedPaths:
    """uploads, models and one directory of the operator's below `root`, with a file in each and some outside."""
    for file in ("up/a.png", "models/loras/own.safetensors", "models/secret.safetensors", "clips/b.mp4", "passwd"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    catalog = load_catalog()
    return AllowedPaths(root / "up", root / "models", [root / "clips"], catalog, named or LTX2Config())


def test_paths_lead_into_the_allowed_directories_alone(tmp_path: Path) -> None:
    paths = paths_of(tmp_path)
    assert paths.media("a.png") == paths.media(f"{tmp_path}/up/a.png") == str(tmp_path / "up/a.png")
    assert paths.media(f"{tmp_path}/up/../clips/b.mp4") == str(tmp_path / "clips/b.mp4")
    assert paths.lora("own.safetensors") == str(tmp_path / "models/loras/own.safetensors")
    assert paths.lora("union-control") == "union-control"
    for path in ("gone.png", f"{tmp_path}/up/gone.png"):
        with pytest.raises(ForbiddenPathError, match=r"there is no file gone\.png"):
            paths.media(path)
    (tmp_path / "up/link.png").symlink_to(tmp_path / "passwd")
    outside = (
        f"{tmp_path}/passwd",
        "../passwd",
        f"{tmp_path}/up/link.png",
        "/etc/passwd",
        "/no/such",
        f"{tmp_path}/models/loras",
    )
    for path in outside:
        with pytest.raises(ForbiddenPathError, match="outside of the directories"):
            paths.media(path)
    for path in ("../secret.safetensors", f"{tmp_path}/models/secret.safetensors", "/etc/passwd"):
        with pytest.raises(ForbiddenPathError, match="outside of the directories"):
            paths.lora(path)


@given(
    st.text(min_size=1)
    | st.lists(st.sampled_from(["..", "up", "/", "a.png", "\0", "~", ".", "\ud800"])).map("/".join)
)
def test_no_text_leads_outside(text: str) -> None:
    root = Path("/nowhere/at/all")
    paths = AllowedPaths(root / "up", root / "models", [root / "clips"], load_catalog(), LTX2Config())
    for rule in (paths.media, paths.lora):
        try:
            found = rule(text)
        except ForbiddenPathError:
            continue
        assert load_catalog().get(found) is not None
        assert found == Path(found).name


async def test_requests_cannot_name_files_elsewhere_and_the_sentence_stands_at_the_field(tmp_path: Path) -> None:
    inside = tmp_path / "clips" / "b.mp4"
    inside.parent.mkdir()
    inside.touch()
    (tmp_path / "up").mkdir()
    app = app_of(uploads=tmp_path / "up", media=[tmp_path / "clips"])
    async with serving(app) as client:
        for body, loc in (
            ({"i2v_image": "/etc/passwd"}, ["i2v_image"]),
            ({"audio_input": "/etc/passwd"}, ["audio_input"]),
            ({"reference_video": "/etc"}, ["reference_video"]),
            ({"images": [{"path": "/etc/passwd"}]}, ["images", 0, "path"]),
            ({"loras": [{"path": "union-control"}, {"path": "/etc/passwd"}]}, ["loras", 1, "path"]),
        ):
            refused = await client.patch("/api/parameters", json={**body, "num_steps": 4})
            assert refused.status_code == 422
            assert [problem["loc"] for problem in refused.json()["detail"]] == [["body", *loc]]
            assert "outside of the directories" in refused.json()["detail"][0]["msg"]
        assert (await client.get("/api/parameters")).json()["num_steps"] == 8
        taken = await client.patch("/api/parameters", json={"reference_video": "b.mp4"})
        assert taken.json()["parameters"]["reference_video"] == str(inside)


async def test_what_the_operator_has_started_with_stays_allowed(tmp_path: Path) -> None:
    paths = paths_of(tmp_path, LTX2Config(i2v_image="/srv/own.png"))
    kept, problems = paths.checked({"i2v_image": "/srv/own.png", "reference_video": None, "images": [3]})
    assert (kept["i2v_image"], problems) == ("/srv/own.png", [])
    _, problems = paths.checked({"i2v_image": "/srv/other.png", "images": [{"path": 7}, {}]})
    assert [problem.loc for problem in problems] == [["body", "i2v_image"]]


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/..%2fapi.py", "/%2e%2e/api.py", "//etc/passwd"])
async def test_the_page_serves_nothing_but_itself(path: str) -> None:
    async with serving(app_of()) as client:
        answer = await client.get(httpx.URL(f"http://live{path}"))
        assert answer.status_code == 404, os.fspath(path)
