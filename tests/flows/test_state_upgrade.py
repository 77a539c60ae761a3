"""Upgrading NumPy or River does not break a start: what was saved under other versions is read, not forgotten."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.flows.record_state import MINUTES, SERIES, read

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.msgpack.gz"))
LONG = "TIDEGAUGE_LONG"


def assert_known(found: dict[str, Any]) -> None:
    assert found["offsets"] == [SERIES * MINUTES] * 2
    assert found["series"] == [SERIES + 1, found["series"][1]]
    assert found["series"][1] > SERIES
    assert found["gpus"] == SERIES
    assert found["watermark_ns"] > 0


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.name)
def test_state_recorded_under_another_numpy_is_read(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read(file)
    assert_known(found)
    assert found["written_with"]["numpy"] != importlib.metadata.version("numpy")
    assert "cold start" not in "".join(capsys.readouterr())


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(LONG), reason=f"installs other versions; only with {LONG}=1")
@pytest.mark.parametrize("version", ["2.3.5", "2.4.0"])
def test_state_goes_back_and_forth_between_versions(version: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--target", str(other), "--no-deps", f"numpy=={version}"],
        check=True, timeout=300,
    )  # fmt: skip

    def run(what: str, path: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "tests.flows.record_state", what, str(tmp_path / "state")],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True, text=True, timeout=300,
        ).stdout  # fmt: skip

    here, there = str(ROOT), f"{other}{os.pathsep}{ROOT}"
    for writer, reader in ((here, there), (there, here)):
        run("write", writer)
        said = run("read", reader)
        assert "cold start" not in said
        assert_known(json.loads(said))
