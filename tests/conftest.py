"""Servers for all tests: the embedded engine, a ClickHouse server over HTTP, a Kafka broker, an Alertmanager.

Real servers are started once per test process, on demand; `tests/servers/choice.py` decides where they come from. Where
one cannot be had, its tests are skipped, saying what is missing, unless `TIDEGAUGE_REQUIRE_SERVERS=1`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # `tests.builders` and `tests.servers` are imported by name


@pytest.fixture(scope="session")
def chdb_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of an embedded database of this test process.

    A process holds one engine at a time, and it ends with its last client: close yours before the test ends, and
    another test may open another directory.
    """
    return f"chdb://{tmp_path_factory.mktemp('chdb') / 'db'}"


@pytest.fixture(scope="session")
def migrated_databases() -> Iterator[Any]:
    """The databases of `chdb_client` and `clickhouse_client`."""
    from tests.servers.databases import MigratedDatabases

    databases = MigratedDatabases()
    yield databases
    databases.drop()


@pytest.fixture
def chdb_client(chdb_url: str, migrated_databases: Any) -> Iterator[Any]:
    """Client of the embedded engine with a migrated, empty database; leave its tables as they are."""
    yield from migrated_databases.emptied(chdb_url)


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a ClickHouse server over HTTP, shared by the tests of this process: do not stop it."""
    from tests.servers.choice import served

    with served("clickhouse", tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture
def clickhouse_client(clickhouse_server: str, migrated_databases: Any) -> Iterator[Any]:
    """Client of the shared server with a migrated, empty database; leave its tables as they are."""
    yield from migrated_databases.emptied(clickhouse_server)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Kafka broker, shared by the tests of this process: use topics of your own."""
    from tests.servers.choice import served

    with served("kafka", tmp_path_factory.mktemp("kafka")) as bootstrap_servers:
        yield bootstrap_servers


@pytest.fixture(scope="session")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base address of a real Alertmanager, shared by the tests of this process: do not stop it."""
    from tests.servers.choice import served

    with served("alertmanager", tmp_path_factory.mktemp("alertmanager")) as url:
        yield url


@pytest.fixture(autouse=True)
def _logs_as_they_are_by_default() -> Iterator[None]:
    """A command run inside a test sends logs to the stream of that moment; the next test starts afresh."""
    yield
    structlog.reset_defaults()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was left out, and why."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "skipped"
        for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        told = "; ".join(f"{n} x {why}" for why, n in sorted(reasons.items(), key=lambda kv: (-kv[1], kv[0])))
        terminalreporter.write_line(f"left out: {told}")
