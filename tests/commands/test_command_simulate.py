"""`tidegauge simulate`: the same seed gives the same bytes; what cannot be simulated is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.commands.command_line import json_lines, succeeded
from tests.commands.test_command_line import run

FILES = ["gpus.jsonl.gz", "requests.jsonl.gz", "truth.jsonl"]
INCIDENT = {
    "kind": "error_burst", "dims": {"provider": "openai"}, "start": "2026-06-01T09:01:00Z",
    "end": "2026-06-01T09:02:00Z", "magnitude": 0.9, "benign": False, "cause": "vendor_capacity",
}  # fmt: skip


def simulated(folder: Path, *arguments: str) -> dict[str, bytes]:
    assert succeeded("simulate", "--minutes", "3", "--rate", "5", "--out", folder, *arguments) == b""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    first = simulated(tmp_path / "a", "--seed", "5", "--incidents", "none")
    assert sorted(first) == FILES
    assert simulated(tmp_path / "b", "--seed", "5", "--incidents", "none") == first
    other = simulated(tmp_path / "c", "--seed", "6", "--incidents", "none")
    assert other["requests.jsonl.gz"] != first["requests.jsonl.gz"]


def test_incidents_come_from_a_file_and_are_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.jsonl").write_text(json.dumps(INCIDENT) + "\n")
    out = tmp_path / "sim"
    code, _, _ = run(
        capsys, "simulate", "--minutes", "3", "--rate", "20", "--out", str(out),
        "--incidents", str(tmp_path / "plan.jsonl"),
    )  # fmt: skip
    assert code == 0
    (truth,) = json_lines(out / "truth.jsonl")
    assert {name: truth[name] for name in INCIDENT} == INCIDENT
    statuses: list[int] = []
    for line in gzip.decompress((out / "requests.jsonl.gz").read_bytes()).splitlines():
        event = json.loads(line)
        at = event["at"]
        if event["provider"] == "openai" and isinstance(at, str) and "09:01:10" < at[11:19] < "09:01:50":
            statuses.append(event["status"])
    failed = sum(status >= 400 or status == 0 for status in statuses)
    assert len(statuses) > 20
    assert failed > 0.7 * len(statuses)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--start", "yesterday"], "--start"),
        (["--start", "2026-01-01T00:00:00"], "time zone"),
        (["--incidents", "/no/such/file"], "/no/such/file"),
        (["--rate", "-1"], "rate"),
    ],
)
def test_what_cannot_be_simulated_is_code_2(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "simulate", "--minutes", "3", "--out", str(tmp_path / "x"), *arguments)
    assert code == 2
    assert words in err
