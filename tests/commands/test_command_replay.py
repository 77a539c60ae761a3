"""`tidegauge replay`: files in, a line of counts out; nobody is called unless asked for; nothing is lost in silence."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from sinks.clickhouse.client import connect
from tests.commands.command_line import ROOT, json_lines, replayed, tidegauge
from tests.commands.test_command_line import run
from tests.sinks.receiver import receiver

START = 1_767_268_800  # 2026-01-01T12:00:00Z


def requests(n: int, *, model: str = "gpt-4o", step_s: float = 1.0) -> bytes:
    """JSON lines of n requests."""
    return b"".join(
        json.dumps({
            "event_id": f"r{i}", "at": START + i * step_s, "team": "search", "provider": "openai", "model": model,
            "status": 200, "input_tokens": 100, "output_tokens": 10,
        }).encode() + b"\n"
        for i in range(n)
    )  # fmt: skip


def gpus(n: int) -> bytes:
    """JSON lines of n samples of one GPU."""
    return b"".join(
        json.dumps({"at": START + 10 * i, "node": "n1", "gpu_index": 0, "util": 0.5}).encode() + b"\n" for i in range(n)
    )


def test_files_and_their_formats_are_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_bytes(requests(40))
    (tmp_path / "gpus-east.jsonl.gz").write_bytes(gzip.compress(gpus(12)))
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2026-01-01 12:00:03.1,7,5\n")
    summary = replayed(
        tmp_path / "requests.jsonl", tmp_path / "gpus-east.jsonl.gz", f"azure-llm={tmp_path / 'trace.csv'}"
    )
    assert summary == {
        "requests": 41, "gpu_samples": 12, "too_late": 0, "input_tokens": 4_007, "output_tokens": 405,
        "dead_letters": {}, "incidents": {"unpriced_model": 1},
    }  # fmt: skip


def test_standard_input_is_a_file_and_standard_output_too(tmp_path: Path) -> None:
    done = tidegauge("replay", "-", "--format", "request", "--windows", "-", stdin=requests(25))
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    total = [x for x in lines if x["dims"] == {}]
    assert [x["requests"] for x in total] == [10, 10, 5]
    # 100 tokens at 2.50 USD and 10 at 10 USD per million: 0.00035 USD a request
    assert [Decimal(x["cost_usd"]) for x in total] == [Decimal("0.0035"), Decimal("0.0035"), Decimal("0.00175")]
    assert json.loads(done.stderr.splitlines()[-1])["requests"] == 25  # the counts make room for the windows


def test_bad_lines_are_counted_by_reason_and_stored(tmp_path: Path) -> None:
    good = requests(10).splitlines(keepends=True)
    good[4:4] = [b"{not json\n", b'{"at": 1767268804, "model": "m", "status": 200}\n']
    url = f"chdb://{tmp_path / 'db'}"
    summary = replayed("-", "--clickhouse", url, stdin=b"".join(good))
    assert summary["requests"] == 10
    assert summary["dead_letters"] == {"missing_field": 1, "not_parsable": 1}
    client = connect(url)
    try:
        assert client.query("SELECT reason, `offset` FROM dead_letters ORDER BY reason").result_rows == [
            ("missing_field", 5),
            ("not_parsable", 4),
        ]
        assert client.query("SELECT count(), sum(cost_usd) > 0 FROM requests_final").result_rows == [(10, True)]
    finally:
        client.close()


def test_replaying_twice_into_one_database_is_replaying_once(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(requests(30))
    url = f"chdb://{tmp_path / 'db'}"
    for _ in range(2):
        replayed(tmp_path / "r.jsonl", "--clickhouse", url)
    client = connect(url)
    try:
        assert client.query("SELECT count() FROM requests_final").result_rows == [(30,)]
        windows = "SELECT sum(requests) FROM request_windows_final WHERE grouping = ''"
        assert client.query(windows).result_rows == [(30,)]
    finally:
        client.close()


def test_a_paced_replay_gives_the_same_windows(tmp_path: Path) -> None:
    for name, speed in (("paced", "1000"), ("free", "max")):
        out = tmp_path / name
        replayed("-", "--speed", speed, "--block-messages", "10", "--windows", out, stdin=requests(40))
    assert (tmp_path / "paced").read_bytes() == (tmp_path / "free").read_bytes() != b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name at least one file"),
        (["/no/such/file.jsonl"], "/no/such/file.jsonl: No such file or directory"),
        (["x.jsonl", "--format", "csv"], "unknown format 'csv'; known formats: azure-llm"),
        (["--windws", "w.jsonl"], "no option --windws"),
        (["x.jsonl", "--windows", "--incidents", "y"], "no option --incidents"),
        (["x.jsonl", "--speed", "fast"], "--speed is `max` or a number above 0"),
        (["x.jsonl", "--speed", "0"], "--speed"),
        (["x.jsonl", "--workers", "0"], "--workers"),
        (["-", "-"], "standard input can be read once"),
        (["x.jsonl", "--config", "/no/such.yaml"], "/no/such.yaml cannot be read"),
    ],
)
def test_bad_usage_is_code_2_and_says_what_to_do(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "replay", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_file_of_another_format_is_refused_before_anything_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("Timestamp,Model\n1,2\n")
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip at all")
    for argument, words in ((f"azure-llm={tmp_path}/a.csv", "expected the header"), (f"{tmp_path}/b.jsonl.gz", "gzip")):
        code, out, err = run(capsys, "replay", str(argument), "--windows", str(tmp_path / "w"))
        assert (code, out) == (2, "")
        assert words in err
    assert not (tmp_path / "w").exists()


def test_a_file_that_breaks_off_is_a_failure_that_says_where(tmp_path: Path) -> None:
    whole = gzip.compress(requests(3_000))
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    done = tidegauge("replay", tmp_path / "cut.jsonl.gz", "--block-messages", "100")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1].decode()
    assert last.startswith(f"{tmp_path / 'cut.jsonl.gz'}: unreadable after message ")
    assert 0 < int(last.split(" message ")[1].split()[0]) < 3_000


def test_rows_that_a_database_refuses_make_the_replay_fail(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path / 'db'}"
    replayed("-", "--clickhouse", url, stdin=requests(5))
    client = connect(url)
    client.command("ALTER TABLE requests MODIFY COLUMN status UInt16 CODEC(ZSTD(1)), RENAME COLUMN topic TO source")
    client.close()
    done = tidegauge("replay", "-", "--clickhouse", url, stdin=requests(7))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1].decode()
    assert last.startswith("replay: 7 rows did not reach the database")
    assert "replay again" in last


def test_nobody_is_called_unless_asked_for(tmp_path: Path) -> None:
    with receiver() as there:
        (tmp_path / "tidegauge.yaml").write_text(
            f"destinations: [{{name: hook, type: webhook, url: '{there.url}/hook'}}]\n"
        )
        arguments = ["-", "--config", tmp_path / "tidegauge.yaml", "--incidents", tmp_path / "i.jsonl"]
        events = requests(60, model="nobody-prices-this")
        assert replayed(*arguments, stdin=events)["incidents"] == {"unpriced_model": 1}
        assert there.requests == []

        replayed(*arguments, "--notify", stdin=events)
        (call,) = there.requests
        assert call.path == "/hook"
        (opened,) = [i for i in json_lines(tmp_path / "i.jsonl") if i["state"] == "open"]
        assert json.loads(call.body)["incident_id"] == opened["incident_id"]


def test_an_incident_that_cannot_be_delivered_makes_the_replay_fail(tmp_path: Path) -> None:
    with receiver() as there:
        there.default = there.default._replace(status=400)
        (tmp_path / "tidegauge.yaml").write_text(
            f"destinations: [{{name: hook, type: webhook, url: '{there.url}/secret-path'}}]\n"
        )
        events = requests(60, model="nobody-prices-this")
        done = tidegauge("replay", "-", "--config", tmp_path / "tidegauge.yaml", "--notify", stdin=events)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1].decode()
    assert last.startswith("replay: 1 incident revisions did not reach hook (")
    assert "secret-path" not in done.stderr.decode()


def test_ctrl_c_ends_a_replay_with_130_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(requests(3_000))
    child = subprocess.Popen(
        [sys.executable, "-m", "flows", "replay", str(tmp_path / "r.jsonl"), "--speed", "30", "--block-messages", "10",
         "--windows", "-"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env={**os.environ, "RUST_BACKTRACE": "0"},
        # A shell that runs us in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.read(1)  # it runs, and would for 100 s
    child.send_signal(signal.SIGINT)
    _, problems = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"Traceback" not in problems


def test_a_reader_that_leaves_ends_the_replay_quietly(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(requests(3_000))
    child = subprocess.Popen(
        [sys.executable, "-m", "flows", "replay", str(tmp_path / "r.jsonl"), "--windows", "-"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env={**os.environ, "RUST_BACKTRACE": "0"},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    assert json.loads(child.stdout.readline())["stream"] == "requests"
    child.stdout.close()
    problems = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait(60) == 1
    assert "Traceback" not in problems
    assert "Exception ignored" not in problems
