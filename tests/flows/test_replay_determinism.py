"""The same input gives byte-identical windows and incidents, whatever the block boundaries and worker count."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.commands.command_line import replayed, succeeded
from tests.traces import DATA


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Half an hour of a simulated company with incidents: requests in two files, GPUs in one.

    Among the requests are lines that cannot be used, late events that still count, and events that are too late.
    """
    folder = tmp_path_factory.mktemp("company")
    succeeded("simulate", "--minutes", "30", "--seed", "3", "--rate", "4", "--out", folder)
    good = gzip.decompress((folder / "requests.jsonl.gz").read_bytes()).splitlines(keepends=True)
    mixed = list(good)
    for number, places in ((400, 150), (900, 1_000), (2_000, 240), (3_100, 3_000)):  # 40 s, 4 min, 1 min, 12 min late
        mixed.insert(number + places, mixed.pop(number))
    for number, bad in (
        (1_500, b'{"at": "2026-06-01T09:05:00Z", "model"\n'),
        (1_501, good[1_501].replace(b'"status":', b'"stat":', 1)),
        (2_222, b"\xff\xfe not text\n"),
        (2_223, b'{"at": 1, "provider": "openai", "model": "m", "status": 200}\n'),
    ):
        mixed.insert(number, bad)
    halves = [folder / "requests-even.jsonl", folder / "requests-odd.jsonl.gz"]
    halves[0].write_bytes(b"".join(mixed[::2]))
    halves[1].write_bytes(gzip.compress(b"".join(mixed[1::2])))
    return [*halves, folder / "gpus.jsonl.gz"]


class Replay(NamedTuple):
    """What one replay wrote and said."""

    windows: bytes
    incidents: bytes
    summary: dict[str, Any]


def replay(out: Path, *arguments: str | Path, shards: int = 2) -> Replay:
    """Replay into files of one name."""
    windows, incidents, config = (out.with_suffix(end) for end in (".windows", ".incidents", ".yaml"))
    config.write_text(f"windows: {{shards: {shards}}}\n")
    summary = replayed(*arguments, "--windows", windows, "--incidents", incidents, "--config", config)
    assert summary["incidents"]
    return Replay(windows.read_bytes(), incidents.read_bytes(), summary)


@pytest.fixture(scope="module")
def first(company: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """The first replay, with one worker and the default block."""
    return replay(tmp_path_factory.mktemp("first") / "a", *company)


def test_the_simulated_input_has_what_could_differ(first: Replay) -> None:
    assert {"not_parsable", "missing_field", "bad_timestamp", "too_late"} <= set(first.summary["dead_letters"])
    assert len(first.summary["incidents"]) >= 2
    assert first.summary["gpu_samples"] > 5_000
    lines = [json.loads(line) for line in first.windows.splitlines()]
    assert any(line["version"] == 2 and line["stream"] == "requests" for line in lines)  # late events that count
    assert {line["stream"] for line in lines} == {"requests", "gpus"}
    states = {json.loads(line)["state"] for line in first.incidents.splitlines()}
    assert {"open", "resolved"} <= states


@pytest.mark.parametrize(("block", "workers"), [(10_000, 1), (777, 2), (61, 3)])
def test_blocks_and_workers_change_no_byte(
    block: int, workers: int, company: list[Path], first: Replay, tmp_path: Path
) -> None:
    again = replay(tmp_path / "b", *company, "--block-messages", str(block), "--workers", str(workers))
    assert again == first


def test_the_number_of_shards_changes_no_row(company: list[Path], first: Replay, tmp_path: Path) -> None:
    again = replay(tmp_path / "c", *company, shards=5)
    assert sorted(again.windows.splitlines()) == sorted(first.windows.splitlines())
    assert sorted(again.incidents.splitlines()) == sorted(first.incidents.splitlines())


def test_blocks_of_one_message_change_no_byte_of_a_real_trace(tmp_path: Path) -> None:
    trace = DATA / "requests" / "azure_llm_2023_code.csv.gz"
    if not trace.exists():
        pytest.skip("shared/data is not here")
    head = tmp_path / "head.csv"
    head.write_bytes(b"".join(gzip.decompress(trace.read_bytes()).splitlines(keepends=True)[:601]))
    whole = replay(tmp_path / "a", f"azure-llm={head}")
    assert len(whole.windows.splitlines()) > 50
    assert replay(tmp_path / "b", f"azure-llm={head}", "--block-messages", "1", "--workers", "2") == whole


def test_windows_are_in_order_and_each_line_stands_once(first: Replay) -> None:
    lines = [json.loads(line) for line in first.windows.splitlines()]
    identities = [(x["stream"], x["start"], x["version"], json.dumps(x["dims"], sort_keys=True)) for x in lines]
    assert len(set(identities)) == len(identities)
    closed = [x["start"] for x in lines if x["version"] == 1 and x["stream"] == "requests"]
    assert closed == sorted(closed)
