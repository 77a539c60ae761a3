"""The users of docker compose on a real server: each can do its work and nothing else."""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from sinks.clickhouse.client import connect
from sinks.clickhouse.migrate import migrate
from tests.servers.cache import free_port
from tests.servers.clickhouse import ClickHouseServer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "clickhouse"
PASSWORDS = {"tidegauge_writer": "writer-secret", "grafana_reader": "reader-secret"}
VARIABLE = {"tidegauge_writer": "WRITER_SHA256", "grafana_reader": "READER_SHA256"}
SERVER_ITSELF = (
    "<default><password/><networks><ip>127.0.0.1</ip></networks>"
    "<profile>default</profile><quota>default</quota></default>"
)
"""User of the statement that makes the test server listen; the real server has none."""


def users_xml() -> str:
    """The file as the server reads it: variables filled in, merged with what the image brings."""
    text = (FOLDER / "users.d" / "tidegauge.xml").read_text(encoding="utf-8")
    for user, variable in VARIABLE.items():
        digest = hashlib.sha256(PASSWORDS[user].encode()).hexdigest()
        given = f'<password_sha256_hex from_env="{variable}"/>'
        assert given in text
        text = text.replace(given, f"<password_sha256_hex>{digest}</password_sha256_hex>")
    assert '<default remove="remove"/>' in text
    text = text.replace('<default remove="remove"/>', SERVER_ITSELF)
    text = text.replace("<profiles>", "<profiles><default/>")
    return text.replace("<quotas>", "<quotas><default/>")


@pytest.fixture(scope="module")
def as_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    server = ClickHouseServer(tmp_path_factory.mktemp("compose"), free_port(), users_xml())
    server.start()
    try:
        yield lambda user: connect(server.url.replace("://", f"://{user}@"), password=PASSWORDS[user])
    finally:
        server.kill()


@pytest.mark.server
def test_the_writer_migrates_and_inserts_but_cannot_drop(as_user: Callable[[str], Any]) -> None:
    client = as_user("tidegauge_writer")
    assert migrate(client, ttl_days_raw=30, ttl_days_windows=400)
    assert migrate(client, ttl_days_raw=30, ttl_days_windows=400) == []
    client.command("INSERT INTO dead_letters (reason) VALUES ('x')")
    for statement in ("DROP TABLE requests", "TRUNCATE TABLE requests", "CREATE USER x", "SELECT * FROM system.users"):
        with pytest.raises(DatabaseError, match=r"ACCESS_DENIED|Not enough privileges"):
            client.command(statement)
    client.close()


@pytest.mark.server
def test_the_reader_reads_within_limits_and_cannot_write(as_user: Callable[[str], Any]) -> None:
    writer = as_user("tidegauge_writer")
    migrate(writer, ttl_days_raw=30, ttl_days_windows=400)
    writer.close()
    client = as_user("grafana_reader")
    answer = client.query("SELECT count() FROM request_windows_final", settings={"max_execution_time": 55})
    assert answer.first_row[0] == 0
    for statement in ("INSERT INTO requests (event_id) VALUES ('x')", "ALTER TABLE requests DELETE WHERE 1"):
        with pytest.raises(DatabaseError, match=r"ACCESS_DENIED|READONLY|readonly"):
            client.command(statement)
    # The driver keeps changed settings away from a readonly user, so they go into the statement.
    for setting in ("max_memory_usage = 1", "readonly = 0"):
        with pytest.raises(DatabaseError, match=r"READONLY|readonly"):
            client.query(f"SELECT 1 SETTINGS {setting}")
    client.close()


def test_rights_are_those_of_the_roles() -> None:
    roles = (ROOT / "sinks" / "clickhouse" / "roles.sql").read_text(encoding="utf-8")
    granted = re.findall(r"^(GRANT .+) TO (tidegauge_\w+);", roles, re.MULTILINE)
    users = ET.parse(FOLDER / "users.d" / "tidegauge.xml").getroot()
    for user, role in (("tidegauge_writer", "tidegauge_migrator"), ("grafana_reader", "tidegauge_reader")):
        assert [q.text for q in users.findall(f"users/{user}/grants/query")] == [g for g, r in granted if r == role]


def test_logs_of_the_server_about_itself_are_kept_for_days_or_off() -> None:
    config = ET.parse(FOLDER / "config.d" / "tidegauge.xml").getroot()
    logs = [e for e in config if e.tag.endswith("_log")]
    assert {e.tag for e in logs} >= {"query_log", "part_log", "trace_log", "text_log", "metric_log"}
    for log in logs:
        engine = log.findtext("engine")
        assert log.get("remove") == "1" or (engine is not None and "TTL event_date + INTERVAL 3 DAY" in engine), log.tag
