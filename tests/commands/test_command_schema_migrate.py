"""`tidegauge schema` prints what is checked in; `tidegauge migrate` may be run again."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sinks.clickhouse.client import connect
from tests.commands.command_line import ROOT, succeeded, tidegauge
from tests.commands.test_command_line import run

PUBLISHED = ROOT / "docs" / "schemas"


def test_schemas_are_those_in_the_docs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schema", "--out", str(tmp_path))
    assert code == 0
    written = sorted(tmp_path.iterdir())
    assert [Path(line) for line in out.splitlines()] == written
    assert [f.name for f in written] == [f.name for f in sorted(PUBLISHED.iterdir())]
    for file in written:
        assert json.loads(file.read_bytes()) == json.loads((PUBLISHED / file.name).read_bytes())


def test_one_schema_or_all_of_them_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    _, everything, _ = run(capsys, "schema")
    assert sorted(json.loads(everything)) == ["gpu_event", "incident", "request_event"]
    _, one, _ = run(capsys, "schema", "request_event")
    assert json.loads(one) == json.loads(everything)["request_event"]


def test_an_unknown_schema_is_code_2_and_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "schema", "requests")
    assert code == 2
    assert "request_event" in err


def test_migrating_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path / 'db'}"
    assert b"applied 0001_requests" in succeeded("migrate", "--clickhouse", url)
    assert succeeded("migrate", "--clickhouse", url) == b"nothing to do: the tables are up to date\n"


@pytest.mark.server
def test_migrating_a_server_from_settings(clickhouse_server: str, tmp_path: Path) -> None:
    database = f"test_{uuid.uuid4().hex[:12]}"
    url = urlsplit(clickhouse_server)._replace(path=f"/{database}").geturl()
    (tmp_path / "tidegauge.yaml").write_text(f"clickhouse: {{url: '{url}', ttl_days_raw: 3}}\n")
    client = connect(url)
    try:
        assert b"ttl_requests_3d" in succeeded("migrate", "--config", tmp_path / "tidegauge.yaml")
        assert client.query("SELECT count() FROM requests_final").result_rows == [(0,)]
    finally:
        client.command(f"DROP DATABASE IF EXISTS {database}", use_database=False)
        client.close()


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [("mysql://db", 2, b"expected chdb://"), ("http://127.0.0.1:1/t", 1, b"cannot connect to 127.0.0.1:1")],
)
def test_a_database_that_cannot_be_had_is_said(url: str, code: int, words: bytes) -> None:
    done = tidegauge("migrate", "--clickhouse", url)
    assert done.returncode == code
    assert words in done.stderr
    assert b"Traceback" not in done.stderr


def test_settings_without_a_database_need_one_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tidegauge.yaml").write_text("clickhouse: null\n")
    code, _, err = run(capsys, "migrate", "--config", str(tmp_path / "tidegauge.yaml"))
    assert code == 2
    assert "--clickhouse" in err
