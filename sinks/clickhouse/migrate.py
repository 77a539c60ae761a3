"""Numbered, re-runnable migrations, and the retention times from settings."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, NamedTuple

from clickhouse_connect.driver.client import Client

from schemas.errors import BadSettings
from sinks.clickhouse.client import DEFAULT_DATABASE

RAW_TABLES: tuple[str, ...] = ("requests", "gpu_samples", "dead_letters")
"""Tables kept for `ttl_days_raw`."""

WINDOW_TABLES: tuple[str, ...] = ("request_windows", "gpu_windows", "scores", "incidents")
"""Tables kept for `ttl_days_windows`."""

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql\Z")
_TTL = re.compile(r"\bTTL inserted_at \+ toIntervalDay\((\d+)\)")


class Migration(NamedTuple):
    """One numbered file of statements."""

    version: int
    name: str
    statements: list[str]


def migrations() -> list[Migration]:
    """All migrations that this program knows, in order."""
    found = []
    for file in (resources.files("sinks.clickhouse") / "migrations").iterdir():
        match = _FILE.match(file.name)
        if match:
            found.append(Migration(int(match[1]), file.name[:-4], _statements(file.read_text(encoding="utf-8"))))
    return sorted(found)


def migrate(client: Client, *, ttl_days_raw: int, ttl_days_windows: int) -> list[str]:
    """Bring the client's database up to date.

    Every statement may run twice, so a migration that was cut off, or that two processes run at once, does no harm.

    Parameters
    ----------
    client
        From `connect`, with the right to create databases, tables and views.
    ttl_days_raw
        Days that requests, GPU samples and dead letters are kept, counted from their insertion.
    ttl_days_windows
        Days that windows, scores and incidents are kept.

    Returns
    -------
    list of str
        Names of what was applied, such as `0001_requests` and `ttl_requests_30d`; empty if nothing was to be done.

    Raises
    ------
    BadSettings
        The database was made by a newer version of the program; nothing is changed then.
    """
    database = client.database or DEFAULT_DATABASE
    known = migrations()
    if not _has_ledger(client, database):  # a writer that may create nothing gets by where all is in place
        _command(client, f"CREATE DATABASE IF NOT EXISTS `{database}`")
        client.database = database
        client.command(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version UInt32, name String, applied_at DateTime('UTC')"
            " DEFAULT now()) ENGINE = ReplacingMergeTree ORDER BY version"
        )
    client.database = database
    done = {int(row[0]) for row in client.query("SELECT DISTINCT version FROM schema_migrations").result_rows}
    newest = known[-1].version
    if done and max(done) > newest:
        raise BadSettings(
            f"clickhouse: database {database} is at migration {max(done)}, this version knows {newest}. "
            "Run a newer tidegauge, or point clickhouse.url at another database."
        )
    applied = []
    for migration in known:
        if migration.version in done:
            continue
        for statement in migration.statements:
            client.command(statement)
        client.insert("schema_migrations", [[migration.version, migration.name]], column_names=["version", "name"])
        applied.append(migration.name)
    for tables, days in ((RAW_TABLES, ttl_days_raw), (WINDOW_TABLES, ttl_days_windows)):
        applied += [f"ttl_{table}_{days}d" for table in tables if _set_ttl(client, database, table, days)]
    return applied


def _has_ledger(client: Client, database: str) -> bool:
    found = client.command(
        "SELECT count() FROM system.tables WHERE database = {d:String} AND name = 'schema_migrations'",
        parameters={"d": database},
        use_database=False,
    )
    return int(str(found)) > 0


def _set_ttl(client: Client, database: str, table: str, days: int) -> bool:
    """Set a table's retention unless it is right already. Returns whether it was changed."""
    created = client.query(
        "SELECT create_table_query FROM system.tables WHERE database = {d:String} AND name = {t:String}",
        parameters={"d": database, "t": table},
    ).result_rows
    match = _TTL.search(str(created[0][0]))
    if match and int(match[1]) == days:
        return False
    client.command(f"ALTER TABLE {table} MODIFY TTL inserted_at + toIntervalDay({int(days)})")
    return True


def _command(client: Client, statement: str) -> None:
    """Run a statement outside any database, since ours may not exist yet."""
    client.command(statement, use_database=False)


def _statements(sql: str) -> list[str]:
    """Split a migration at semicolons that end a line; comments on lines of their own are dropped."""
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    parts = [part.strip() for part in re.split(r";\s*$", "\n".join(lines), flags=re.MULTILINE)]
    return [part for part in parts if part]


def column_types(client: Client, table: str) -> dict[str, Any]:
    """Columns of a table of the client's database with their ClickHouse types."""
    rows = client.query(
        "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {t:String}",
        parameters={"t": table},
    ).result_rows
    return {str(name): str(kind) for name, kind in rows}
