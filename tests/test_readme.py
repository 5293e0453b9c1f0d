"""What the README says about commands, parameters, files and figures is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scope_ltx.cli import main
from scope_ltx.config import LTX2Config
from scope_ltx.manifest import load_manifest
from tests.fakes.live_app import live

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SCHEMA = LTX2Config.model_json_schema()["properties"]
DEFINITIONS = LTX2Config.model_json_schema()["$defs"]
TABLES = [line.strip("|").split("|") for line in README.splitlines() if line.startswith("|")]
ROWS = {cells[0].strip("` "): [cell.strip() for cell in cells] for cells in TABLES}


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value) or "empty"


@pytest.mark.parametrize("name", LTX2Config.model_fields)
def test_every_parameter_has_its_row(name: str) -> None:
    _, default, bounds, kind, meaning = ROWS[name]
    field = SCHEMA[name]
    assert default == shown(field.get("default"))
    assert kind == field["ltx"]["kind"]
    assert meaning
    options = field.get("anyOf", [field])
    numbers: dict[str, Any] = next(
        (option for option in options if option.get("type") in ("integer", "number")), {}
    )
    low, high = numbers.get("minimum", numbers.get("exclusiveMinimum")), numbers.get("maximum", "")
    if low is not None:
        assert bounds.removesuffix(", none") == f"{low:g}..{f'{high:g}' if isinstance(high, float) else high}"
    if "enum" in field:
        assert bounds == ", ".join(field["enum"])
    if "maxItems" in field:
        assert bounds.startswith(f"up to {field['maxItems']} ")
    if "$ref" in field.get("items", {}):
        item = DEFINITIONS[field["items"]["$ref"].rpartition("/")[2]]
        assert re.findall("`([a-z_]+)`", bounds) == list(item["properties"])


def test_commands_and_options_exist() -> None:
    commands = set(re.findall(r"`scope-ltx ([a-z]+)", README)) | set(
        re.findall(r"^\$ scope-ltx ([a-z]+)", README, re.M)
    )
    assert commands == set(main.commands)
    texts = [CliRunner().invoke(main, [command, "--help"]).output for command in ("serve", "generate")]
    for option in set(re.findall(r"`(--[a-z-]+)", README)):
        assert option in "".join(texts), option


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", README)) | set(
        re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)
    )
    assert {"demo", "test"} <= named <= targets


async def test_every_request_of_the_table_is_answered(tmp_path: Path) -> None:
    """By something else than 404, and than 405 for its method."""
    table = README.partition("| request | answer |")[2].partition("```sh")[0]
    async with live(uploads=tmp_path / "uploads", recordings=tmp_path / "recordings") as client:
        asked = 0
        for cell in re.findall(r"^\| (.+?) \|", table, re.M):
            methods: list[str] = []
            for word in re.findall(r"`([^`]+)`", cell):
                method, _, path = word.partition(" ")
                methods.append(method)
                for one in methods if path else []:
                    answer = await client.request(one, path.replace("{id}", "none"))
                    # An address of nothing is told as such, and not as one that there is not.
                    unknown = answer.status_code == 404 and answer.json()["detail"] == "Not Found"
                    assert not unknown, (one, path)
                    assert answer.status_code != 405, (one, path)
                    asked += 1
                methods = [] if path else methods
    assert asked >= 20


@pytest.mark.parametrize("document", ["README.md", "benchmarks/README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    assert links
    for link in links:
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_model_files_are_those_of_the_manifest() -> None:
    for file in load_manifest().files:
        assert f"`{file.path}`" in README


def test_step_times_are_those_of_the_committed_run() -> None:
    """The tables of both READMEs, against benchmarks/results/weights.json."""
    run = json.loads((ROOT / "benchmarks/results/weights.json").read_text())
    rows = [row for row in run["budgets"] if row["mode"] == "graphs"]
    method = (ROOT / "benchmarks/README.md").read_text()
    for row in rows:
        floor = run["sizes"][row["size"]]["floor"]["median_s"] * 1e3
        copy = f"{row['copy_floor_s'] * 1e3:.2f} ms" if row["copy_floor_s"] else ""
        line = (
            f"| {row['budget_gib']:g} GiB | {row['size']} | {row['resident']} / {row['streamed']} "
            f"| {row['median_s'] * 1e3:.2f} ms | {floor:.2f} ms | {copy} | {row['ratio_to_limit']:.3f} |"
        )
        assert re.sub(r" +", " ", line) in re.sub(r" +", " ", method), line
    found = re.findall(r"^\| (\d+) GiB \| \S+ \| \d+ of 48 \| ([\d.]+) ms \|", README, re.MULTILINE)
    assert found
    for budget, milliseconds in found:
        steps = [row["median_s"] * 1e3 for row in rows if row["budget_gib"] == float(budget)]
        assert any(abs(step - float(milliseconds)) < 0.051 for step in steps), (budget, milliseconds)


@pytest.mark.parametrize("budget", ["24", "8"])
def test_chunk_times_are_those_of_the_committed_run(budget: str) -> None:
    run = json.loads((ROOT / f"benchmarks/results/chunk_{budget}gib.json").read_text())
    column = 1 if budget == "24" else 2
    rows = {name: cells[column] for name, cells in ROWS.items() if len(cells) == 3}
    assert (
        f"{run['chunk']['median_s']:.3f} ({run['real_time_factor']:.1f} x" in rows["seconds per chunk of 5.375 s"]
    )
    assert f"{run['chunk_with_prompt_change']['median_s']:.3f}" in rows["with a new prompt every chunk"]
    late = run["late_starting_chunks"] + run["late_chunks_with_prompt_change"]
    assert str(late) == rows["late chunks, at the start and with new prompts"]
    played = run["played_with_a_new_prompt_every_chunk"]
    assert (played["frames_shown"], played["chunks_with_another_prompt"]) == (played["frames_due"], 0)
    assert str(played["late_frames"]) == rows["late frames in 60 s played to the clock, a new prompt every chunk"]
    load = json.loads((ROOT / f"benchmarks/results/load_{budget}gib.json").read_text())
    assert f"{load['first_frame_s']:.1f} s at {budget} GiB" in README
