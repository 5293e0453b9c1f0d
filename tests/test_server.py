from __future__ import annotations

import asyncio
import json
import mimetypes
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scope_ltx.config import LTX2Config
from scope_ltx.errors import CheckpointError, GenerationCancelled
from scope_ltx.hosts.live.app import create_app
from scope_ltx.hosts.live.http.bodies import MAX_JSON_BYTES
from scope_ltx.hosts.live.serve import bind, url_of
from scope_ltx.manifest import load_manifest
from scope_ltx.request import Chunk, ChunkRequest, Generator
from scope_ltx.sound_in.track import TrackEnded
from scope_streaming.clock import SystemClock
from tests.fakes.generator import Ending, TestCardGenerator
from tests.fakes.live_app import CONFIG, ROOT, SDP, app_of, assert_problem, live, offer_sdp, serving, until


async def test_the_page_answers_while_the_model_loads() -> None:
    loaded = threading.Event()

    def start() -> Generator:
        assert loaded.wait(10)
        return TestCardGenerator()

    async with serving(app_of(start)) as client:
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        page = await client.get("/")
        assert page.status_code == 200
        assert "<html" in page.text
        assert page.headers["cache-control"] == "no-cache"
        assert (await client.get("/api/prompt")).json() == {"prompt": "a red ball"}
        status = (await client.get("/api/status")).json()
        assert (status["state"], status["chunk"], status["prompt"]) == ("loading", None, None)
        assert_problem(await client.get("/readyz"), 503, "no chunk was made yet")

        refused = await client.post("/whep", content=await offer_sdp(), headers=SDP)
        assert_problem(refused, 409, "the model is loading")
        assert int(refused.headers["retry-after"]) > 0

        loaded.set()
        await until(client, lambda status: status["state"] == "live")
        assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_a_model_that_cannot_be_loaded_is_told_everywhere() -> None:
    def start() -> Generator:
        raise CheckpointError(Path("vae.safetensors"), "the file is missing", advice="Run the download.")

    async with serving(app_of(start)) as client:
        status = await until(client, lambda status: status["state"] == "error")
        assert status["last_error"] == "vae.safetensors: the file is missing. Run the download."
        assert_problem(await client.get("/readyz"), 503, "the file is missing")
        assert_problem(await client.post("/whep", content=await offer_sdp(), headers=SDP), 409, "missing")
        assert (await client.get("/healthz")).status_code == 200


async def test_status_tells_what_is_on_air() -> None:
    async with live() as client:
        status = await until(client, lambda status: status["chunk"] is not None)
        assert status["prompt"] == "a red ball"
        assert status["model"] == "fake"
        assert status["real_time_factor"] == pytest.approx(9 / 24)
        assert status["buffer_s"] > 0
        assert status["last_error"] is None
        await client.post("/api/prompt", json={"prompt": "a blue ball"})
        await until(client, lambda status: status["prompt"] == "a blue ball")


async def test_after_a_song_that_is_to_stop_the_picture_stands_until_there_is_another() -> None:
    ended = "song.wav has ended after 0.75 s: the picture stands until audio_input or audio_at_end is another"
    generator = Ending(2, TrackEnded("song.wav has ended after 0.75 s"))
    async with serving(app_of(lambda: generator)) as client:
        status = await until(client, lambda status: bool(status["notes"]) and status["buffer_s"] == 0)
        assert (status["state"], status["chunk"], status["last_error"]) == ("live", 1, None)
        assert status["notes"] == [ended]
        stalls = status["stalls"]
        await asyncio.sleep(0.5)
        assert (await client.get("/readyz")).status_code == 200
        generator.left = 1000
        await client.patch("/api/parameters", json={"audio_at_end": "silence"})
        status = await until(client, lambda status: status["chunk"] > 1)
        assert (status["notes"], status["stalls"]) == ([], stalls)
        assert "scope_ltx_chunk_failures_total{" not in (await client.get("/metrics")).text


async def test_the_prompt_on_air_is_known_however_short_a_chunk_is() -> None:
    """Seven chunks of 9 frames at 60 fps are taken ahead."""
    config = CONFIG.updated(frame_rate=60.0)
    app = create_app(TestCardGenerator, config, "a red ball", clock=SystemClock(), nonce="", model="fake")
    seen: list[str | None] = []

    def far_enough(status: dict[str, Any]) -> bool:
        if status["chunk"] is not None:
            seen.append(status["prompt"])
        return status["chunk"] is not None and status["chunk"] >= 15

    async with serving(app) as client:
        await until(client, far_enough)
        assert set(seen) == {"a red ball"}
        await client.post("/api/prompt", json={"prompt": "a blue ball"})
        await until(client, lambda status: status["prompt"] == "a blue ball")
        assert "scope_ltx_prompt_change_seconds_count 1.0" in (await client.get("/metrics")).text


async def test_parameters_change_and_say_what_was_snapped() -> None:
    async with live() as client:
        schema = (await client.get("/api/schema")).json()
        assert schema["properties"]["num_steps"]["ltx"]["kind"] == "live"
        answer = await client.patch("/api/parameters", json={"height": 70, "num_steps": 4})
        assert answer.status_code == 200
        body = answer.json()
        assert (body["parameters"]["height"], body["parameters"]["num_steps"]) == (64, 4)
        assert [sentence.split(":")[0] for sentence in body["adjustments"]] == ["height 70 became 64"]
        assert (await client.get("/api/parameters")).json() == body["parameters"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ('{"frame_rate": NaN}', {"frame_rate"}),
        ('{"frame_rate": 1e999}', {"frame_rate"}),
        ('{"num_steps": 21, "i2v_strength": -1}', {"num_steps", "i2v_strength"}),
        ('{"height": "384"}', {"height"}),
        ('{"sigmas": [1.0, 0.5]}', {"sigmas"}),
        ('{"no_such": 1, "self": 2}', {"no_such", "self"}),
        ('{"\\ud800": 1}', {"body"}),
        ("[1, 2]", {"body"}),
        ("NaN", {"body"}),
    ],
)
async def test_bad_values_are_refused_by_field_and_change_nothing(body: str, fields: set[str]) -> None:
    async with serving(app_of()) as client:
        answer = await client.patch("/api/parameters", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        problems = answer.json()["detail"]
        assert {problem["loc"][-1] for problem in problems} == fields
        assert all(problem["msg"] for problem in problems)
        assert (await client.get("/api/parameters")).json() == CONFIG.model_dump(mode="json")


async def test_load_parameters_are_set_at_start() -> None:
    async with serving(app_of()) as client:
        refused = await client.patch("/api/parameters", json={"ffn_chunk_size": 1024, "num_steps": 4})
        assert_problem(refused, 409, "ffn_chunk_size", "set at start")
        assert (await client.get("/api/parameters")).json()["num_steps"] == 8
        same = await client.patch("/api/parameters", json={"ffn_chunk_size": 4096, "num_steps": 4})
        assert same.json()["parameters"]["num_steps"] == 4


async def test_modes_are_set_and_cleared_and_their_problems_have_a_place(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png", "own.safetensors")]
    for file in files:
        file.touch()
    first, second, own = map(str, files)
    async with serving(app_of(media=[tmp_path])) as client:
        pins = [{"path": first}, {"path": second, "frame_idx": 8, "strength": 0.5}]
        loras = [{"path": "union-control"}, {"path": own, "strength": 0.7}]
        taken = await client.patch(
            "/api/parameters", json={"images": pins, "loras": loras, "control_group": "canny"}
        )
        parameters = taken.json()["parameters"]
        assert parameters["images"] == [{"path": first, "frame_idx": 0, "strength": 1.0}, pins[1]]
        assert parameters["loras"] == [
            {"path": "union-control", "strength": None, "stage_two_strength": None},
            loras[1] | {"stage_two_strength": None},
        ]
        assert parameters == (await client.get("/api/parameters")).json()

        refused = await client.patch("/api/parameters", json={"i2v_image": second, "continuity": "extend"})
        assert refused.status_code == 422
        problem = refused.json()["detail"][0]
        assert problem["loc"] == ["body", "images"]
        assert "composite them into one image" in problem["msg"]
        wrong = await client.patch("/api/parameters", json={"loras": [{"path": "sync", "weight": 1}]})
        assert wrong.json()["detail"] == [
            {"loc": ["body", "loras", 0, "weight"], "msg": "there is no such parameter"}
        ]
        cleared = await client.patch("/api/parameters", json={"images": [], "loras": [], "i2v_image": None})
        assert cleared.json()["parameters"] == {**CONFIG.model_dump(mode="json"), "control_group": "canny"}


async def test_the_catalog_tells_what_is_there_and_how_the_rest_is_got(tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    listed = {lora.id: lora for lora in load_manifest().loras}
    (folder / listed["union-control"].file).write_bytes(b"")
    (folder / "own.safetensors").write_bytes(b"")
    async with serving(app_of(models=tmp_path)) as client:
        answer = (await client.get("/api/loras")).json()
    assert [entry["facts"]["id"] for entry in answer["loras"]] == list(listed)
    by_id = {entry["facts"]["id"]: entry for entry in answer["loras"]}
    present, absent = by_id["union-control"], by_id["ingredients"]
    assert (present["path"], present["download"]) == (str(folder / listed["union-control"].file), None)
    assert absent["path"] is None
    assert absent["download"].startswith("scope-ltx download --only-loras --lora ingredients ")
    assert absent["facts"]["strength"] == {"recommended": 1.4, "low": 1.0, "high": 1.4, "stacked": None}
    assert absent["facts"]["prompt"]["form"] == "two_part"
    assert absent["facts"]["preparation"]["min_frames"] == 121
    assert answer["files"] == [str(folder / "own.safetensors")]
    async with serving(app_of()) as client:
        answer = (await client.get("/api/loras")).json()
    assert {(entry["path"], entry["download"]) for entry in answer["loras"]} == {(None, None)}
    assert answer["files"] == []


async def test_a_listed_file_can_be_chosen_wherever_the_server_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "models" / "loras" / "own.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    async with serving(app_of(models=Path("models"))) as client:
        (listed,) = (await client.get("/api/loras")).json()["files"]
        chosen = await client.patch("/api/parameters", json={"loras": [{"path": listed}]})
    assert chosen.status_code == 200, chosen.text
    assert chosen.json()["parameters"]["loras"][0]["path"] == str(own)


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/api/parameters"), ("POST", "/api/prompt")])
async def test_bodies_that_are_no_json_are_refused(method: str, path: str) -> None:
    is_json = {"content-type": "application/json; charset=utf-8"}
    async with serving(app_of()) as client:
        form = await client.request(method, path, data={"prompt": "x"})
        assert_problem(form, 415, "application/json", "application/x-www-form-urlencoded")
        assert_problem(await client.request(method, path, content=b"{}"), 415, "got none")
        for body in (b"", b"{", b"\xff\xfe", b"[" * 60_000, b'{"a": ' + b"1" * 5_000 + b"}"):
            assert_problem(await client.request(method, path, content=body, headers=is_json), 400, "no JSON")
        long = b'{"prompt": "' + b"x" * MAX_JSON_BYTES + b'"}'
        assert_problem(await client.request(method, path, content=long, headers=is_json), 413, "65536 bytes")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": 7}, "must be a string"),
        ({}, "must be a string"),
        ({"prompt": "x" * 10_001}, "10001 characters"),
        ({"prompt": "a \ud800"}, "lone surrogate"),
        ({"prompt": "x", "negative": "y"}, "no such field"),
        ({"prompt": "x", "transition_chunks": 2}, "no such field: send prompt, or prompts"),
        ({"prompts": []}, "at least 1 item"),
        ({"prompts": "a red ball"}, "valid tuple"),
        ({"prompts": [{"text": "a"}] * 9}, "at most 8 items"),
        ({"prompts": [{"text": "a", "weight": 0}]}, "greater than 0"),
        ({"prompts": [{"text": "a", "weight": "1"}]}, "valid number"),
        ({"prompts": [{"text": 3}]}, "valid string"),
        ({"prompts": [{"text": " "}]}, "the prompt is empty"),
        ({"prompts": [{"text": "a"}], "prompt": "b"}, "no such parameter"),
        ({"prompts": [{"text": "a"}], "transition_chunks": -1}, "greater than or equal to 0"),
        ({"prompts": [{"text": "a"}], "transition_chunks": 1.5}, "valid integer"),
    ],
)
async def test_prompts_that_cannot_be_used_are_refused(body: dict[str, Any], message: str) -> None:
    async with serving(app_of()) as client:
        content = json.dumps(body)
        refused = await client.post("/api/prompt", content=content, headers={"content-type": "application/json"})
        assert refused.status_code == 422
        assert message in refused.json()["detail"][0]["msg"]
        accepted = await client.post("/api/prompt", json={"prompt": " a blue ball "})
        assert accepted.json() == {"prompt": "a blue ball"}


async def test_several_prompts_are_blended_by_weight() -> None:
    generator = TestCardGenerator()
    async with live(start=lambda: generator) as client:
        blend = [{"text": " a red ball ", "weight": 1}, {"text": "a blue ball", "weight": 3.0}]
        taken = await client.post("/api/prompt", json={"prompts": blend})
        assert taken.status_code == 200
        described = taken.json()["prompt"]
        assert "a red ball" in described
        assert "a blue ball" in described
        assert (await client.get("/api/prompt")).json() == {"prompt": described}
        await until(client, lambda status: status["prompt"] == described)
        mix = generator.requests[-1].mix
        assert [part.text for part in mix] == ["a red ball", "a blue ball"]
        assert mix[1].weight == pytest.approx(3 * mix[0].weight)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([*LTX2Config.model_fields, "x"]), JSON, max_size=4))
def test_no_json_object_makes_the_server_fail(changes: dict[str, Any]) -> None:
    app = app_of()

    async def send() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://live") as client:
            headers = {"content-type": "application/json"}
            answer = await client.patch("/api/parameters", content=json.dumps(changes), headers=headers)
            assert answer.status_code in (200, 409, 422), answer.text
            assert answer.json()

    asyncio.run(send())


async def test_a_failing_generator_is_shown_and_a_change_tries_it_again_at_once() -> None:
    class Picky(TestCardGenerator):
        def generate(self, request: ChunkRequest) -> Chunk:
            if request.config.num_steps == 3:
                raise ValueError("three steps: not today")
            return super().generate(request)

    async with live(start=Picky) as client:
        await client.patch("/api/parameters", json={"num_steps": 3})
        status = await until(client, lambda status: status["state"] == "error")
        assert status["last_error"] == "three steps: not today"
        await client.patch("/api/parameters", json={"num_steps": 8})
        await until(client, lambda status: status["state"] == "live")
        status = await until(client, lambda status: status["stalls"] > 0)
        assert status["last_error"] is None


async def test_modules_are_javascript_whatever_the_machine_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' registry may call .js text/plain, and then no browser runs the page's modules."""
    monkeypatch.setitem(mimetypes.types_map, ".js", "text/plain")
    async with serving(app_of()) as client:
        name = re.findall(r'src="([^"]+\.js)"', (await client.get("/")).text)[0]
        module = await client.get(f"/{name.lstrip('./')}")
        assert module.status_code == 200
        assert module.headers["content-type"] == "text/javascript; charset=utf-8"
        assert (await client.get("/gone.js")).status_code == 404


async def test_openapi_describes_what_goes_in_and_out() -> None:
    async with serving(app_of()) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert {
            "/api/parameters",
            "/api/prompt",
            "/api/loras",
            "/api/status",
            "/whep",
            "/healthz",
            "/readyz",
        } <= paths.keys()
        sent = paths["/api/parameters"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
        assert sent["properties"].keys() == LTX2Config.model_fields.keys()
        assert sent["properties"]["loras"]["items"]["properties"].keys() == {
            "path",
            "strength",
            "stage_two_strength",
        }
        assert "$ref" not in json.dumps(sent)
        assert "application/sdp" in paths["/whep"]["post"]["requestBody"]["content"]
        assert "409" in paths["/whep"]["post"]["responses"]


class Patient(TestCardGenerator):
    """Works on each chunk until it is cancelled."""

    def __init__(self, working: threading.Event) -> None:
        super().__init__()
        self._working = working

    def generate(self, request: ChunkRequest) -> Chunk:
        self._working.set()
        assert request.cancel.wait(10)
        raise GenerationCancelled("as asked")


@pytest.mark.alone
async def test_shutdown_cancels_the_chunk_and_leaves_no_thread() -> None:
    working = threading.Event()
    async with serving(app_of(lambda: Patient(working))):
        assert await asyncio.to_thread(working.wait, 10)
        asked_s = time.monotonic()
    assert time.monotonic() - asked_s < 2.0
    names = {thread.name for thread in threading.enumerate()}
    assert not {name for name in names if name.startswith(("generation", "media-encoder"))}


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_within_two_seconds(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.fakes.live_server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        while httpx.get(f"{url}readyz").status_code != 200:
            time.sleep(0.05)
        asked_s = time.monotonic()
        process.send_signal(number)
        process.wait(10)
        assert time.monotonic() - asked_s < 2.0


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://127.0.0.1:{port}/"
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: .* --port"):
            bind("127.0.0.1", port)


def test_an_empty_prompt_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        create_app(TestCardGenerator, CONFIG, " ", clock=SystemClock(), nonce="", model="fake")
