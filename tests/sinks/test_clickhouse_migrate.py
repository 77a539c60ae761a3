from __future__ import annotations

from typing import Any

import pytest

from schemas.columns import DIMENSIONS, GPU_DIMENSIONS
from schemas.errors import BadSettings
from schemas.gpu_window import SUMS as GPU_SUMS
from schemas.request_window import SUMS
from sinks.clickhouse import finding_tables, tables, window_tables
from sinks.clickhouse.migrate import RAW_TABLES, WINDOW_TABLES, column_types, migrate, migrations
from tests import builders
from tests.servers.databases import new_database
from tests.sinks.findings import INCIDENT, LETTER, REPORT


def test_migrating_twice_changes_nothing_the_second_time(engine_url: str) -> None:
    for client in new_database(engine_url):
        first = migrate(client, ttl_days_raw=30, ttl_days_windows=400)
        assert first[: len(migrations())] == [m.name for m in migrations()]
        assert migrate(client, ttl_days_raw=30, ttl_days_windows=400) == []


def test_every_migration_may_run_again_after_it_was_cut_off(own_database: Any) -> None:
    own_database.command("TRUNCATE TABLE schema_migrations")
    assert migrate(own_database, ttl_days_raw=30, ttl_days_windows=400) == [m.name for m in migrations()]


def test_a_database_made_by_a_newer_program_is_refused_and_left_alone(own_database: Any) -> None:
    own_database.insert("schema_migrations", [[9_999, "9999_future"]], column_names=["version", "name"])
    with pytest.raises(BadSettings, match="migration 9999"):
        migrate(own_database, ttl_days_raw=1, ttl_days_windows=1)
    assert "toIntervalDay(30)" in own_database.command("SHOW CREATE TABLE requests")


def test_another_retention_time_is_applied_to_the_tables_it_concerns(own_database: Any) -> None:
    assert migrate(own_database, ttl_days_raw=7, ttl_days_windows=400) == [f"ttl_{table}_7d" for table in RAW_TABLES]
    assert "TTL inserted_at + toIntervalDay(7)" in own_database.command("SHOW CREATE TABLE requests")
    assert "TTL inserted_at + toIntervalDay(400)" in own_database.command("SHOW CREATE TABLE request_windows")


def test_a_replay_of_old_events_outlives_the_retention_time(chdb_client: Any) -> None:
    chdb_client.command("INSERT INTO requests (at, event_id) VALUES ('2023-11-16 18:00:00', 'old')")
    chdb_client.command("OPTIMIZE TABLE requests FINAL")
    assert chdb_client.command("SELECT count() FROM requests") == 1


def test_tables_have_exactly_the_columns_that_are_written(chdb_client: Any) -> None:
    columns = builders.request_columns(3)
    written = {
        "requests": tables.requests(columns, builders.costs_for(columns), "v1"),
        "gpu_samples": tables.gpu_samples(builders.gpu_columns(3)),
        "request_windows": window_tables.request_windows(builders.request_windows()),
        "gpu_windows": window_tables.gpu_windows(builders.gpu_windows()),
        "scores": finding_tables.scores(REPORT, 0.0),
        "incidents": finding_tables.incidents([INCIDENT]),
        "dead_letters": finding_tables.dead_letters([LETTER]),
    }
    assert set(written) == {*RAW_TABLES, *WINDOW_TABLES}
    for name, table in written.items():
        assert table is not None
        assert set(column_types(chdb_client, name)) - {"inserted_at"} == set(table.column_names), name
    assert set(DIMENSIONS) <= set(written["requests"].column_names)
    assert set(GPU_DIMENSIONS) <= set(written["gpu_samples"].column_names)
    assert {window_tables.usd_name(name) for name in SUMS} <= set(written["request_windows"].column_names)
    assert {window_tables.usd_name(name) for name in GPU_SUMS} <= set(written["gpu_windows"].column_names)


@pytest.mark.parametrize("table", [*RAW_TABLES, *WINDOW_TABLES])
def test_every_table_replaces_by_identity_and_recognises_a_repeated_insert(chdb_client: Any, table: str) -> None:
    created = chdb_client.command(f"SHOW CREATE TABLE {table}")
    assert "ENGINE = ReplacingMergeTree" in created
    assert "non_replicated_deduplication_window = 1000" in created
