"""docs/reliability.md: every fault has a test, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_fault_names_tests_that_exist() -> None:
    rows = DOCUMENT.split("## Faults")[1].split("## Soak")[0].strip().splitlines()[2:]
    assert len(rows) >= 15
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, row
        for file, name in named:
            assert re.search(rf"def {name}\(", (TESTS / file).read_text(encoding="utf-8")), (file, name)
