from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.columns import MISSING, UNPRICED
from schemas.money import to_usd
from schemas.request_window import COLUMN
from schemas.series import Series
from schemas.sketch import bucket_of, value_of
from sinks.clickhouse.quantiles import merged_quantile
from tests import builders
from tests.sinks.findings import INCIDENT, LETTER, REPORT


def rows_of(client: Any, table: str, order: str) -> list[dict[str, Any]]:
    return list(client.query(f"SELECT * FROM {table} ORDER BY {order}").named_results())


def none_if(value: Any, missing: Any) -> Any:
    return None if value == missing or (isinstance(value, float) and math.isnan(value)) else value


def test_requests_come_back_exactly(database: Any, writer_for: Any) -> None:
    columns = builders.request_columns(500)
    costs = builders.costs_for(columns)
    writer = writer_for(database)
    writer.requests(columns, costs, "prices-1")
    assert writer.drain(30)
    rows = rows_of(database, "requests", "`offset`")
    assert len(rows) == 500
    for name, coded in columns.dims.items():
        assert [row[name] for row in rows] == coded.texts(), name
    for name in ("input_tokens", "output_tokens", "cache_write_tokens", "attempt", "ratelimit_limit_tokens"):
        assert [row[name] for row in rows] == [none_if(v, MISSING) for v in getattr(columns, name).tolist()], name
    for name in ("latency_ms", "ttft_ms", "retry_after_ms"):
        assert [row[name] for row in rows] == [none_if(v, MISSING) for v in getattr(columns, name).tolist()], name
    assert [row["stream"] for row in rows] == [{-1: None, 0: False, 1: True}[v] for v in columns.stream.tolist()]
    assert [row["failed"] for row in rows] == columns.failed.tolist()
    assert [row["error_message"] for row in rows] == [columns.error_message.get(i, "") for i in range(500)]
    exact = database.query("SELECT toUnixTimestamp64Nano(at) FROM requests ORDER BY `offset`").result_columns[0]
    assert list(exact) == columns.at_ns.tolist()
    assert {row["price_version"] for row in rows} == {"prices-1"}


def test_two_requests_may_fail_with_the_same_message(database: Any, writer_for: Any) -> None:
    columns = builders.request_columns(20, seed=3)
    columns.error_message = {2: "quota", 5: "timeout", 9: "quota"}
    writer = writer_for(database)
    writer.requests(columns, builders.costs_for(columns), "prices-1")
    assert writer.drain(20), writer.status()
    rows = rows_of(database, "requests", "offset")
    assert {i: r["error_message"] for i, r in enumerate(rows) if r["error_message"]} == columns.error_message


def test_money_is_exact_and_unpriced_is_null(database: Any, writer_for: Any) -> None:
    columns = builders.request_columns(200)
    costs = builders.costs_for(columns)
    writer = writer_for(database)
    writer.requests(columns, costs, "prices-1")
    assert writer.drain(30)
    rows = rows_of(database, "requests", "`offset`")
    unpriced = costs.status == UNPRICED
    assert unpriced.any()
    assert not unpriced.all()
    for row, total, cached, without in zip(
        rows, costs.total_pico.tolist(), costs.cache_read_pico.tolist(), unpriced.tolist(), strict=True
    ):
        assert row["cost_usd"] == (None if without else to_usd(total))
        assert row["cost_cache_read_usd"] == (None if without else to_usd(cached))
        assert row["pricing_status"] == ("unpriced" if without else "priced")
    total = database.query("SELECT sum(cost_usd) FROM requests").first_row[0]
    assert total == to_usd(int(costs.total_pico[~unpriced].sum()))


def test_the_largest_amount_of_an_event_is_kept_at_the_limit_of_the_column(database: Any, writer_for: Any) -> None:
    columns = builders.request_columns(2, cost_given_pico=np.array([10**18, 1]))
    writer = writer_for(database)
    writer.requests(columns, builders.costs_for(columns), "v")
    assert writer.drain(30)
    rows = rows_of(database, "requests", "`offset`")
    assert [row["cost_given_usd"] for row in rows] == [Decimal("999999.999999999999"), Decimal("0.000000000001")]


def test_an_event_without_id_is_known_by_its_place(database: Any, writer_for: Any) -> None:
    columns = builders.request_columns(2, event_id=["", "own"], offsets=np.array([7, 8]))
    writer = writer_for(database)
    writer.requests(columns, builders.costs_for(columns), "v")
    assert writer.drain(30)
    assert [row["event_id"] for row in rows_of(database, "requests", "`offset`")] == ["ai.requests/0/7/0", "own"]


def test_gpu_samples_come_back_exactly(database: Any, writer_for: Any) -> None:
    columns = builders.gpu_columns(100)
    writer = writer_for(database)
    writer.gpu_samples(columns)
    assert writer.drain(30)
    rows = rows_of(database, "gpu_samples", "`offset`")
    assert [row["gpu_uuid"] for row in rows] == columns.dims["gpu_uuid"].texts()
    assert [row["util"] for row in rows] == [none_if(v, MISSING) for v in columns.util.tolist()]
    assert [row["memory_used_bytes"] for row in rows] == columns.memory_used_bytes.tolist()
    prices = columns.usd_per_hour_pico.tolist()
    assert [row["usd_per_hour"] for row in rows] == [None if p == MISSING else to_usd(p) for p in prices]


def test_windows_come_back_exactly_with_plain_dimensions(database: Any, writer_for: Any) -> None:
    series = [
        Series("requests", (), ()),
        Series("requests", ("team",), ("a,b",)),
        Series("requests", ("provider", "model"), ("openai", "x")),
    ]
    windows = builders.request_windows(series)
    windows.sums[0, COLUMN["cost_pico"]] = 9_223_372_036_854_775_807
    windows.sums[2, COLUMN["unpriced_requests"]] = windows.sums[2, COLUMN["requests"]]
    writer = writer_for(database)
    writer.request_windows(windows)
    assert writer.drain(30)
    rows = {row["series"]: row for row in rows_of(database, "request_windows", "series")}
    total, team, model = (rows[s.key()] for s in series)
    assert (total["grouping"], team["grouping"], model["grouping"]) == ("", "team", "provider,model")
    assert (team["team"], team["model"], model["model"], model["team"]) == ("a,b", "", "x", "")
    assert model["dims"] == {"provider": "openai", "model": "x"}
    assert total["cost_usd"] == to_usd(9_223_372_036_854_775_807)
    assert model["cost_usd"] is None
    assert model["missed_cache_usd"] is None
    assert model["outcome_value_usd"] == to_usd(int(windows.column("outcome_value_pico")[2]))
    assert [row["errors_timeout"] for row in (total, team, model)] == windows.column("errors_timeout").tolist()
    assert total["latency_ms_p95"] == windows.quantiles["latency_ms"][0, 1]
    cells = windows.sketches["latency_ms"]
    assert team["latency_ms_buckets"] == cells.buckets[cells.rows == 1].tolist()
    assert team["latency_ms_counts"] == cells.counts[cells.rows == 1].tolist()
    assert total["window_start"].replace(tzinfo=UTC) == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_series_without_measurements_has_an_empty_sketch_and_null_quantiles(database: Any, writer_for: Any) -> None:
    series = [Series("requests", ("team",), (team,)) for team in "abc"]
    windows = builders.request_windows(series, latencies=[np.array([]), np.array([100.0]), np.array([])])
    writer = writer_for(database)
    writer.request_windows(windows)
    assert writer.drain(30)
    rows = rows_of(database, "request_windows", "series")
    assert [len(row["latency_ms_buckets"]) for row in rows] == [0, 1, 0]
    assert [row["latency_ms_p50"] is None for row in rows] == [True, False, True]


def test_version_two_of_a_window_replaces_version_one(database: Any, writer_for: Any) -> None:
    first, second = builders.request_windows(version=1), builders.request_windows(version=2, seed=1)
    writer = writer_for(database)
    for windows in (second, first):  # the older one comes last, as after a restart
        writer.request_windows(windows)
        assert writer.drain(30)
    rows = rows_of(database, "request_windows_final", "series")
    assert [row["version"] for row in rows] == [2, 2, 2]
    assert [row["input_tokens"] for row in rows] == second.column("input_tokens").tolist()


def test_gpu_windows_come_back_with_owners_and_xids(database: Any, writer_for: Any) -> None:
    windows = builders.gpu_windows(2)
    writer = writer_for(database)
    writer.gpu_windows(windows)
    assert writer.drain(30)
    rows = {row["series"]: row for row in rows_of(database, "gpu_windows_final", "series")}
    gpu, rollup = rows[windows.series[0].key()], rows[windows.series[2].key()]
    assert (gpu["is_gpu"], gpu["gpu"], gpu["pool"], gpu["xids"]) == (True, "GPU-0", "pool-a", [79, 13])
    assert (rollup["is_gpu"], rollup["gpu"], rollup["pool"], rollup["xids"]) == (False, "", "inference", [])
    assert gpu["util_max"] is None
    assert gpu["busy_usd"] == to_usd(int(windows.column("busy_pico")[0]))


def test_only_strange_scores_are_kept(database: Any, writer_for: Any) -> None:
    writer = writer_for(database)
    writer.scores(REPORT, 0.9)
    writer.scores(REPORT, 0.99)
    assert writer.drain(30)
    rows = rows_of(database, "scores", "score")
    assert [(row["series"], row["score"], row["expected"], row["detail"]) for row in rows] == [
        ("requests{team=search}", 0.9, 1.5, "why"),
        ("requests{team=a\\,b}", 0.95, None, ""),
    ]


def test_the_newest_revision_of_an_incident_is_its_latest(database: Any, writer_for: Any) -> None:
    resolved = msgspec.structs.replace(INCIDENT, revision=2, state="resolved", resolved_at="2026-01-01T12:05:00Z")
    writer = writer_for(database)
    writer.incidents([resolved])
    assert writer.drain(30)
    writer.incidents([INCIDENT, resolved])
    assert writer.drain(30)
    assert database.command("SELECT count() FROM incidents FINAL") == 2
    (latest,) = rows_of(database, "incidents_latest", "incident_id")
    assert (latest["revision"], latest["state"], latest["team"], latest["links"]) == (
        2,
        "resolved",
        "search",
        INCIDENT.links,
    )
    assert latest["resolved_at"].replace(tzinfo=UTC) == datetime(2026, 1, 1, 12, 5, tzinfo=UTC)
    assert latest["summary"] == INCIDENT.summary
    assert json.loads(latest["contributors"]) == msgspec.to_builtins(INCIDENT.contributors)
    assert json.loads(latest["factors"]) == msgspec.to_builtins(INCIDENT.factors)
    assert (latest["sparkline"], latest["related"]) == (INCIDENT.sparkline, INCIDENT.related)


def test_dead_letters_keep_the_way_back_to_their_source(database: Any, writer_for: Any) -> None:
    writer = writer_for(database)
    writer.dead_letters([LETTER])
    writer.dead_letters([])
    assert writer.drain(30)
    (row,) = rows_of(database, "dead_letters", "`offset`")
    assert (row["reason"], row["topic"], row["partition"], row["offset"], row["payload"]) == (
        "wrong_type", "ai.requests", 3, 12, LETTER.payload,
    )  # fmt: skip


def test_sketches_merged_in_sql_give_the_quantile_of_all_values(database: Any, writer_for: Any) -> None:
    rng = np.random.default_rng(7)
    values = [rng.lognormal(3, 0.3, 900), rng.lognormal(7, 0.5, 100), np.array([]), rng.lognormal(5, 2, 37)]
    series = [Series("requests", ("team",), (team,)) for team in "abcd"]
    writer = writer_for(database)
    writer.request_windows(builders.request_windows(series, latencies=values))
    assert writer.drain(30)
    everything = np.sort(np.concatenate(values))
    for q in (0.0, 0.5, 0.95, 0.99, 1.0):
        found = database.query(f"SELECT {merged_quantile('latency_ms', q)} FROM request_windows_final").first_row[0]
        right = everything[int(q * (len(everything) - 1))]
        assert found == pytest.approx(float(value_of(bucket_of(np.array([right])))[0]), rel=1e-9)
        assert found == pytest.approx(right, rel=0.0101)
    nothing = database.query(
        f"SELECT {merged_quantile('latency_ms', 0.95)} FROM request_windows_final WHERE team = 'c'"
    ).first_row[0]
    assert nothing is None
