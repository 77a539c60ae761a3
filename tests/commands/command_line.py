"""The commands as a person runs them: in a process of their own, from the folder of the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def tidegauge(
    *arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "flows", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **environment},
        timeout=300,
    )


def succeeded(*arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None, **environment: str) -> bytes:
    """Standard output of a command that must succeed."""
    done = tidegauge(*arguments, stdin=stdin, cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr.decode()[-4_000:]
    return done.stdout


def replayed(*arguments: str | Path, stdin: bytes = b"") -> dict[str, Any]:
    """The closing line of a replay."""
    summary: dict[str, Any] = json.loads(succeeded("replay", *arguments, stdin=stdin).splitlines()[-1])
    return summary


def json_lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
