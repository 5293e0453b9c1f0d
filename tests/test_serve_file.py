"""`serve --config FILE`: one file that starts the same server again."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scope_ltx import cli
from scope_ltx.config import LTX2Config
from scope_ltx.config_file import load_config
from tests.fakes.cli_backend import FakeBackend
from tests.fakes.live_app import app_of, serving


def serve(*arguments: str | Path, backend: FakeBackend) -> Result:
    return CliRunner().invoke(cli.main, ["serve", *map(str, arguments)], obj=backend)


SHOW = """
num_steps = 6
continuity = "extend"

[serve]
prompt = "rain on a tin roof"
port = 9001
host = "127.0.0.1"
log-format = "json"
log_level = "info"
vram_budget_gb = 20.5
pageable = true
"""


def test_a_file_gives_options_and_parameters(tmp_path: Path) -> None:
    file = tmp_path / "show.toml"
    file.write_text(SHOW)
    backend = FakeBackend()
    result = serve("--config", file, "--port", "9002", backend=backend)
    assert result.exit_code == 0, result.output
    assert (backend.served["prompt"], backend.served["port"]) == ("rain on a tin roof", 9002)
    config = backend.served["config"]
    assert isinstance(config, LTX2Config)
    assert (config.num_steps, config.continuity) == (6, "extend")
    engine = backend.served["engine"]
    assert (engine.vram_budget_gb, engine.pageable) == (20.5, True)  # type: ignore[attr-defined]
    assert backend.logging == ("json", "info")


def test_other_commands_take_the_parameters_and_leave_the_table(tmp_path: Path) -> None:
    file = tmp_path / "show.toml"
    file.write_text(SHOW)
    assert load_config(file, {}).num_steps == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[serve]\nports = 1\n", ("[serve] has no ports", "prompt")),
        ("[serve]\nconfig_file = 'x'\n", ("has no config_file",)),
        ("serve = 3\n", ("[serve] must be a table", "int")),
        ("[serve]\nport = 99999\n", ("99999", "0<=x<=65535")),
        ("[serve]\nlog_format = 'xml'\n", ("xml", "json")),
        ("[serve]\nprompt = ' '\n", ("the prompt is empty",)),
    ],
)
def test_a_wrong_table_is_refused_by_name(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "show.toml"
    file.write_text(text)
    backend = FakeBackend()
    result = serve("--config", file, backend=backend)
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr
    assert backend.served == {}


async def test_what_a_running_server_tells_starts_the_same_one(tmp_path: Path) -> None:
    """After changes over HTTP: save GET /api/parameters, and start with it."""
    async with serving(app_of()) as client:
        await client.patch("/api/parameters", json={"num_steps": 5, "continuity": "extend", "cfg_scale": 2.5})
        saved = await client.get("/api/parameters")
    file = tmp_path / "running.json"
    file.write_bytes(saved.content)
    assert load_config(file, {}).model_dump(mode="json") == saved.json()
