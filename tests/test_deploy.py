"""docs/deploy/: the front door before two server processes, and that every file says what the product has."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from scope_ltx import cli
from scope_ltx.hosts.live.http.access import AccessPolicy
from scope_ltx.hosts.live.http.front_door import checked_base_path
from tests.fakes.camera_sender import camera
from tests.fakes.cli_backend import FakeBackend
from tests.fakes.live_app import SDP, app_of, assert_problem, offer_sdp, serving, until
from tests.fakes.network_viewer import Server, joined, running_server

DEPLOY = Path(__file__).parents[1] / "docs" / "deploy"
SMALL = ("--height", "64", "--width", "320", "--frames", "9")
PODS = ("scope-ltx-0", "scope-ltx-1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def front_door(servers: dict[str, Server], folder: Path) -> Iterator[str]:
    """HAProxy with the shipped configuration, its addresses replaced by those of these servers."""
    port = free_port()
    text = (DEPLOY / "haproxy.cfg").read_text().replace("bind :8080", f"bind 127.0.0.1:{port}")
    for name, server in servers.items():
        text, found = re.subn(rf"{name}\.\S+:8000", server.url.removeprefix("http://").rstrip("/"), text)
        assert found == 1
    (folder / "haproxy.cfg").write_text(text)
    command = ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(5)


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[tuple[str, dict[str, Server]]]:
    if shutil.which("haproxy") is None and "SCOPE_LTX_ALL_PEERS" not in os.environ:
        pytest.skip("needs haproxy: apt-get install haproxy")
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running_server(*SMALL, "--base-path", f"/pods/{name}")) for name in PODS
        }
        yield stack.enter_context(front_door(servers, tmp_path)), servers


async def is_there(client: httpx.AsyncClient, path: str) -> bool:
    with suppress(httpx.ConnectError):
        return (await client.get(path)).status_code == 200
    return False


async def told_by_another(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """Once the health checks have found out, after some four seconds: until then requests are cut off."""
    while True:
        with suppress(httpx.TransportError):
            answer = await client.get(path)
            if answer.headers.get("content-type") == "application/problem+json":
                return answer
        await asyncio.sleep(0.2)


async def ready(client: httpx.AsyncClient, *paths: str) -> None:
    async with asyncio.timeout(20):
        for path in paths:
            while not await is_there(client, path):  # noqa: ASYNC110 - over HTTP
                await asyncio.sleep(0.1)


@pytest.mark.network
async def test_two_servers_behind_the_front_door(pods: tuple[str, dict[str, Server]]) -> None:
    door, servers = pods
    offer = await offer_sdp()
    async with httpx.AsyncClient(base_url=door) as client:
        await ready(client, *(f"/pods/{name}/readyz" for name in PODS))

        # Newcomers are spread, and none is answered at the door.
        sent = [await client.post("/whep", content=offer, headers=SDP) for _ in range(6)]
        assert {answer.status_code for answer in sent} == {307}
        assert {answer.headers["location"] for answer in sent} == {f"/pods/{name}/whep" for name in PODS}

        # A client that follows gets a place whose address carries the pod; so its DELETE finds it again.
        for name in PODS:
            before = (await servers[name].status())["viewers"]
            answer = await client.post(f"/pods/{name}/whep", content=offer, headers=SDP)
            assert answer.status_code == 201
            place = answer.headers["location"]
            assert place.startswith(f"/pods/{name}/whep/")
            assert (await servers[name].status())["viewers"] == before + 1
            assert (await client.delete(place)).status_code == 200
            assert (await servers[name].status())["viewers"] == before

        # The page and its API below the pod's name.
        page = await client.get("/", follow_redirects=True)
        assert "<html" in page.text
        assert page.url.path in {f"/pods/{name}/" for name in PODS}
        status = await client.get(str(page.url.join("api/status")))
        assert status.json()["model"] == "test card"


@pytest.mark.network
async def test_the_door_finds_the_server_that_has_a_place(pods: tuple[str, dict[str, Server]]) -> None:
    door, servers = pods
    async with httpx.AsyncClient(base_url=door) as client:
        await ready(client, *(f"/pods/{name}/readyz" for name in PODS))
        async with camera(f"{door}/pods/{PODS[0]}/whip", 64, 320):
            for _ in range(4):
                sent = await client.post("/whip", content=b"v=0", headers=SDP)
                assert (sent.status_code, sent.headers["location"]) == (307, f"/pods/{PODS[1]}/whip")
            async with camera(f"{door}/pods/{PODS[1]}/whip", 64, 320):
                assert_problem(await client.post("/whip", content=b"v=0", headers=SDP), 503, "all places")
        # Through the door and the redirect, and seen by a viewer of that server.
        for name in PODS:
            async with joined(Server(f"{door}/pods/{name}/", servers[name].process)) as viewer:
                async with asyncio.timeout(20):
                    while len(viewer.video) <= 24:  # noqa: ASYNC110 - the tracks set no event
                        await asyncio.sleep(0.1)


@pytest.mark.network
async def test_a_server_that_is_gone_is_told_and_not_asked(pods: tuple[str, dict[str, Server]]) -> None:
    door, servers = pods
    async with httpx.AsyncClient(base_url=door) as client:
        await ready(client, *(f"/pods/{name}/readyz" for name in PODS))
        servers[PODS[0]].process.kill()
        async with asyncio.timeout(15):
            answer = await told_by_another(client, f"/pods/{PODS[0]}/api/status")
        assert_problem(answer, 503, "is not there: try again")
        for _ in range(4):
            sent = await client.post("/whep", content=b"v=0", headers=SDP)
            assert (sent.status_code, sent.headers["location"]) == (307, f"/pods/{PODS[1]}/whep")


async def test_below_a_base_path_everything_is_as_at_the_root() -> None:
    async with serving(app_of(base_path="/pods/one")) as client:
        await until(client, lambda status: status["state"] == "live")
        for path in ("/healthz", "/readyz", "/api/status", "/metrics"):
            assert (await client.get(path)).status_code == 200
            assert (await client.get(f"/pods/one{path}")).status_code == 200
        for path in ("/", "/whip", "/whep", "/pods/one"):
            answer = await client.get(path)
            assert answer.status_code == 307
            assert answer.headers["location"] == ("/pods/one" + path if path != "/pods/one" else "/pods/one/")
        assert (await client.get("/pods/one/app.js")).status_code == 200
        assert_problem(await client.get("/pods/two/"), 503, "this is /pods/one")
        assert (await client.get("/pods/onetwo/")).status_code == 503
        answer = await client.post("/pods/one/whep", content=await offer_sdp(), headers=SDP)
        assert answer.headers["location"].startswith("/pods/one/whep/")


async def test_the_token_is_asked_for_below_a_base_path_too() -> None:
    token = "a-token-for-this-test-only"
    access = AccessPolicy.of("0.0.0.0", token, ())
    async with serving(app_of(base_path="/pods/one", access=access)) as client:
        for path, status in (
            ("/", 200),
            ("/app.js", 200),
            ("/healthz", 200),
            ("/api/status", 401),
            ("/metrics", 401),
        ):
            assert (await client.get(f"/pods/one{path}")).status_code == status, path
        for path in ("/whip", "/whep"):
            assert (await client.post(path, content=b"v=0", headers=SDP)).status_code == 401
            known = {**SDP, "authorization": f"Bearer {token}"}
            assert (await client.post(path, content=b"v=0", headers=known)).status_code == 307


@pytest.mark.parametrize("text", ["/", "pods", "/pods/", "/pods//one", "/pods/one?", "//evil.example"])
def test_what_is_no_base_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a base path looks like"):
        checked_base_path(text)


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def test_the_manifests_are_valid_and_fit_together() -> None:
    found = documents()
    for document in found:
        kubernetes_validate.validate(document, "1.30", strict=True)
    by_name = {(document["kind"], document["metadata"]["name"]): document for document in found}
    pods, headless = by_name["StatefulSet", "scope-ltx"]["spec"], by_name["Service", "scope-ltx"]["spec"]
    config = (DEPLOY / "haproxy.cfg").read_text()
    servers = re.findall(r"^    server (\S+) (\S+?)\.(\S+?)\.default\.svc\.\S+:(\d+)$", config, re.M)
    assert [name for name, *_ in servers] == [f"scope-ltx-{i}" for i in range(pods["replicas"])]
    assert {(name == host, service, int(port)) for name, host, service, port in servers} == {
        (True, pods["serviceName"], headless["ports"][0]["port"])
    }
    (container,) = pods["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["args"] == ["--base-path", "/pods/$(POD_NAME)"]


def test_the_container_and_the_manifest_start_what_the_command_takes() -> None:
    """The Dockerfile's command line with the manifest's arguments, as the program reads them."""
    dockerfile = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")
    entry = yaml.safe_load(re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.M)[0])
    assert entry[0] == "scope-ltx"
    backend = FakeBackend()
    arguments = ["small" if word == "/models" else word for word in entry[1:]]
    result = CliRunner().invoke(
        cli.main, [*arguments, "--base-path", "/pods/scope-ltx-0"], obj=backend, env={"SCOPE_LTX_TOKEN": "t" * 32}
    )
    assert result.exit_code == 0, result.output
    assert backend.served["host"] == "0.0.0.0"
    assert backend.served["options"].base_path == "/pods/scope-ltx-0"  # type: ignore[attr-defined]
    # What it writes lies in the volume, which belongs to its user before it becomes one.
    assert {entry[entry.index(option) + 1].split("/")[1] for option in ("--upload-dir", "--record-dir")} == {
        "data"
    }
    assert re.search(r"^RUN install -d -o scope /data\nUSER scope\n(?:.*\n)*VOLUME /data$", dockerfile, re.M)
    for source in re.findall(r"^COPY (.*) \S+$", dockerfile, re.M):
        for name in source.split():
            assert (DEPLOY.parents[1] / name).exists(), name


def test_the_shown_file_starts_a_server(tmp_path: Path) -> None:
    text = (DEPLOY / "show.toml").read_text().replace('model = "/srv/models"\n', "")
    assert tomllib.loads(text)["serve"]["port"] == 8000
    file = tmp_path / "show.toml"
    file.write_text(text)
    backend = FakeBackend()
    result = CliRunner().invoke(
        cli.main, ["serve", "--config", str(file)], obj=backend, env={"SCOPE_LTX_TOKEN": "t" * 32}
    )
    assert result.exit_code == 0, result.output
    assert backend.served["options"].max_viewers == 16  # type: ignore[attr-defined]


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = (DEPLOY / "scope-ltx.service").read_text()
    # Only what is on this machine is found: another program in its place.
    unit, found = re.subn(r"ExecStart=\S+", "ExecStart=/bin/true", unit)
    assert found == 1
    path = tmp_path / "scope-ltx.service"
    path.write_text(unit)
    command = ["systemd-analyze", "verify", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    told = [line for line in done.stderr.splitlines() if "scope-ltx" in line and "man " not in line]
    assert (done.returncode, told) == (0, [])
