"""Databases for tests that share one server."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from schemas.errors import DeliveryFailed
from sinks.clickhouse.client import connect
from sinks.clickhouse.migrate import RAW_TABLES, WINDOW_TABLES, migrate


def new_database(url: str) -> Iterator[Any]:
    """A client whose database does not exist yet; it is dropped afterwards."""
    client = connect(url)
    client.database = f"test_{uuid.uuid4().hex[:12]}"
    yield client
    client.command(f"DROP DATABASE IF EXISTS {client.database}", use_database=False)
    client.close()


class MigratedDatabases:
    """One migrated database per server and test process, emptied before each use, since migrating takes a while."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def emptied(self, url: str) -> Iterator[Any]:
        """A client of the migrated, empty database."""
        client = connect(url)
        client.database = self._names.get(url) or f"test_{uuid.uuid4().hex[:12]}"
        if url in self._names:
            for table in (*RAW_TABLES, *WINDOW_TABLES):
                client.command(f"TRUNCATE TABLE {table}")
        else:
            migrate(client, ttl_days_raw=30, ttl_days_windows=400)
            self._names[url] = client.database
        yield client
        client.close()

    def drop(self) -> None:
        """Remove the databases of servers that still run; ours were stopped before."""
        for url, name in self._names.items():
            with contextlib.suppress(DeliveryFailed):
                client = connect(url)
                client.command(f"DROP DATABASE IF EXISTS {name}", use_database=False)
                client.close()
