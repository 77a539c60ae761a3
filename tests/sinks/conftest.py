"""The same tests against the embedded engine and a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ENGINES = ["chdb", pytest.param("server", marks=pytest.mark.server)]


@pytest.fixture(params=ENGINES)
def engine_url(request: pytest.FixtureRequest) -> str:
    """URL of each kind of engine."""
    name = "chdb_url" if request.param == "chdb" else "clickhouse_server"
    return str(request.getfixturevalue(name))


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest) -> Any:
    """Client of each kind of engine, with a migrated, empty database."""
    return request.getfixturevalue("chdb_client" if request.param == "chdb" else "clickhouse_client")


@pytest.fixture
def own_database(engine_url: str) -> Iterator[Any]:
    """Client of each kind of engine, with a migrated database that the test may change."""
    from sinks.clickhouse.migrate import migrate
    from tests.servers.databases import new_database

    for client in new_database(engine_url):
        migrate(client, ttl_days_raw=30, ttl_days_windows=400)
        yield client


@pytest.fixture
def writer_for(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make writers that are closed after the test; by default into the database of a client, spooling to `tmp_path`."""
    from sinks.clickhouse.writer import Writer

    writers = []

    class Borrowed:
        """The test's client, without its end: the writer closes what it is given."""

        def __init__(self, client: Any) -> None:
            self._client = client

        def raw_insert(self, *args: Any, **kwargs: Any) -> Any:
            return self._client.raw_insert(*args, **kwargs)

        def close(self) -> None:
            pass

    def make(client: Any = None, **options: Any) -> Writer:
        if client is not None:
            options.setdefault("client_factory", lambda: Borrowed(client))
            options.setdefault("database", client.database)
        factory = options.pop("client_factory")
        defaults = {"spool_dir": tmp_path / "spool", "spool_bytes": 100_000_000, "max_delay_s": 0.02}
        writer = Writer(factory, **{**defaults, **options})
        writers.append(writer)
        return writer

    yield make
    for writer in writers:
        writer.close()
