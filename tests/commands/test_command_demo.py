"""`tidegauge demo`, as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_finds_incidents_delivers_them_and_leaves_a_database(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "flows", "demo", "--minutes", "90", "--rate", "10", "--seed", "5", "--out", str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "What was injected, and what Tidegauge said" in done.stdout
    assert "Look further" in done.stdout
    found = [json.loads(line) for line in (folder / "incidents.jsonl").read_text().splitlines()]
    kinds = {i["kind"] for i in found}
    assert "gpu_fault" in kinds
    assert len(kinds) >= 4, kinds
    sent = done.stdout.replace("\n", " ")
    assert "Slack received 0 messages" not in sent
    assert "PagerDuty 0." not in sent
    asked = subprocess.run(
        [sys.executable, "-m", "flows.demo.ask", str(folder), "SELECT count() AS n FROM tidegauge.requests_final"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = int("".join(c for c in asked.stdout.splitlines()[3] if c.isdigit()))
    assert f"{rows:,} requests" in sent


def test_the_demo_never_empties_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "flows", "demo", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Name an empty folder" in done.stderr
    assert (tmp_path / "precious.txt").read_text() == "mine"
