from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.errors import DeliveryFailed
from sinks.clickhouse.client import connect
from sinks.clickhouse.migrate import migrate
from tests import builders
from tests.servers.cache import free_port
from tests.servers.clickhouse import ClickHouseServer

ROLES = (resources.files("sinks.clickhouse") / "roles.sql").read_text()
PASSWORD = "hunter2-very-secret"
SERVER_ITSELF = (
    "<default><password/><networks><ip>127.0.0.1</ip></networks>"
    "<profile>default</profile><quota>default</quota></default>"
)
"""User of the statement that makes the test server listen."""
PARTS = {"writer": "tidegauge_writer", "migrator": "tidegauge_migrator", "reader": "tidegauge_reader"}


def statements() -> list[str]:
    plain = "\n".join(line for line in ROLES.splitlines() if not line.startswith("--"))
    return [part.strip() for part in plain.split(";") if part.strip()]


def users_xml() -> str:
    """The rights of `roles.sql` as the test server takes them: users from a file, each with the grants of its role."""
    grants = defaultdict(list)
    for statement in statements():
        match = re.fullmatch(r"(GRANT .+) TO (\w+)", statement, re.DOTALL)
        if match:
            grants[match[2]].append(match[1])
    (profile,) = (s for s in statements() if s.startswith("CREATE SETTINGS PROFILE"))
    values = dict(re.findall(r"(\w+) = (\d+)", profile))
    changeable = re.findall(r"(\w+) = \d+ MIN (\d+) MAX (\d+) CHANGEABLE_IN_READONLY", profile)
    users = "".join(
        f"<{user}><password>{PASSWORD}</password><networks><ip>127.0.0.1</ip></networks><quota>default</quota>"
        f"<profile>{'reader' if user == 'reader' else 'default'}</profile>"
        f"<grants>{''.join(f'<query>{grant}</query>' for grant in grants[role])}</grants></{user}>"
        for user, role in PARTS.items()
    )
    settings = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    constraints = "".join(
        f"<{name}><min>{least}</min><max>{most}</max><changeable_in_readonly/></{name}>"
        for name, least, most in changeable
    )
    return (
        f"<clickhouse><quotas><default/></quotas><profiles><default/><reader>{settings}"
        f"<constraints>{constraints}</constraints></reader></profiles><users>{users}{SERVER_ITSELF}</users></clickhouse>"
    )


@pytest.fixture(scope="module")
def as_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Connect to a migrated server as one of the users."""
    server = ClickHouseServer(tmp_path_factory.mktemp("roles"), free_port(), users_xml())
    server.start()

    def make(user: str, password: str = PASSWORD) -> Any:
        return connect(server.url.replace("://", f"://{user}@"), password=password)

    try:
        client = make("migrator")
        migrate(client, ttl_days_raw=30, ttl_days_windows=400)
        migrate(client, ttl_days_raw=31, ttl_days_windows=400)
        client.close()
        yield make
    finally:
        server.kill()


def test_the_roles_are_valid_sql(chdb_client: Any) -> None:
    for statement in statements():
        formatted = chdb_client.query("SELECT formatQuery({q:String})", parameters={"q": statement}).first_row[0]
        assert formatted.split()[0] == statement.split()[0]


@pytest.mark.server
def test_the_writer_inserts_and_cannot_drop(as_user: Any, writer_for: Any) -> None:
    writer = writer_for(client_factory=lambda: as_user("writer"))
    columns = builders.request_columns(10)
    writer.requests(columns, builders.costs_for(columns), "v1")
    assert writer.drain(30)
    client = as_user("writer")
    for statement in ("DROP TABLE requests", "TRUNCATE TABLE requests", "ALTER TABLE requests DELETE WHERE 1"):
        with pytest.raises(DatabaseError, match="ACCESS_DENIED"):
            client.command(statement)
    client.close()


DESTRUCTIVE = (
    "DROP TABLE requests",
    "TRUNCATE TABLE requests",
    "ALTER TABLE requests DELETE WHERE 1",
    "DELETE FROM requests WHERE 1",
    "ALTER TABLE requests UPDATE team = '' WHERE 1",
    "ALTER TABLE requests DROP PARTITION tuple()",
    "ALTER TABLE requests DROP COLUMN team",
    "ALTER TABLE requests CLEAR COLUMN team",
    "DETACH TABLE requests",
    "RENAME TABLE requests TO gone",
    "OPTIMIZE TABLE requests FINAL",
    "DROP DATABASE tidegauge",
    "CREATE USER intruder",
    "GRANT SELECT ON *.* TO reader",
    "SYSTEM SHUTDOWN",
    "KILL QUERY WHERE 1",
)
OUTSIDE = (
    "SELECT * FROM system.users",
    "SELECT * FROM system.named_collections",
    "SELECT * FROM url('http://127.0.0.1:1/', CSV, 'a String')",
    "SELECT * FROM file('/etc/passwd', LineAsString)",
    "SELECT * FROM remote('127.0.0.1', system.users)",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/k', 'CSV', 'a String')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "CREATE TABLE tidegauge.intruder (a Int8) ENGINE = URL('http://127.0.0.1:1/', CSV)",
    "CREATE DICTIONARY tidegauge.intruder (a Int8) PRIMARY KEY a SOURCE(FILE(path '/etc/passwd' format 'CSV')) "
    "LAYOUT(FLAT()) LIFETIME(0)",
)


@pytest.mark.server
@pytest.mark.parametrize("user", sorted(PARTS))
def test_nobody_destroys_anything_or_reaches_outside(as_user: Any, user: str) -> None:
    client = as_user(user)
    for statement in (*DESTRUCTIVE, *OUTSIDE):
        with pytest.raises(DatabaseError, match=r"ACCESS_DENIED|READONLY|Not enough privileges|readonly") as caught:
            client.command(statement)
        assert "SYNTAX" not in str(caught.value), statement
    client.close()


@pytest.mark.server
def test_the_reader_cannot_lift_its_limits(as_user: Any) -> None:
    client = as_user("reader")
    for setting in (
        "max_execution_time = 0",
        "max_execution_time = 121",
        "max_memory_usage = 0",
        "max_result_rows = 0",
        "readonly = 0",
    ):
        with pytest.raises(DatabaseError, match=r"READONLY|readonly|SETTING_CONSTRAINT_VIOLATION|should(n't| not) be"):
            client.query(f"SELECT 1 SETTINGS {setting}")
    with pytest.raises(DatabaseError, match=r"TOO_MANY_ROWS|Limit for result exceeded"):
        client.query("SELECT number FROM numbers(1000001)")
    client.close()


@pytest.mark.server
def test_the_reader_may_set_a_time_limit_and_cannot_write(as_user: Any) -> None:
    client = as_user("reader")
    answer = client.query("SELECT count() FROM requests_final", settings={"max_execution_time": 5})
    assert answer.first_row[0] >= 0
    with pytest.raises(DatabaseError, match=r"ACCESS_DENIED|READONLY"):
        client.command("INSERT INTO requests (event_id) VALUES ('x')")
    client.close()


@pytest.mark.server
def test_a_user_without_the_right_is_refused_visibly_and_its_rows_are_kept(as_user: Any, writer_for: Any) -> None:
    writer = writer_for(client_factory=lambda: as_user("reader"))
    columns = builders.request_columns(10)
    writer.requests(columns, builders.costs_for(columns), "v1")
    with writer._changed:
        assert writer._changed.wait_for(lambda: writer.status()["refused"], 20)
    status = writer.status()
    assert status["queued_rows"] == 10
    assert PASSWORD not in repr(status)


@pytest.mark.server
def test_a_wrong_password_is_shown_as_a_refused_connection_without_it(as_user: Any, writer_for: Any) -> None:
    with pytest.raises(DeliveryFailed) as caught:
        as_user("writer", "wrong-" + PASSWORD)
    assert not caught.value.retryable
    assert PASSWORD not in repr(caught.value)
    writer = writer_for(client_factory=lambda: as_user("writer", "wrong-" + PASSWORD))
    columns = builders.request_columns(10)
    writer.requests(columns, builders.costs_for(columns), "v1")
    with writer._changed:
        assert writer._changed.wait_for(lambda: "connection" in writer.status()["refused"], 20)
    assert PASSWORD not in repr(writer.status())
