from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from tests.builders import NOON_NS
from tests.grafana import company
from tests.grafana.macros import Value
from tests.grafana.queries import INTERVAL_MS, QUERIES, Query, text

ALLOWED_NULLS = {
    "Expected", "Impact per hour", "Per outcome", "Cost per outcome", "Per priced request", "Spend before", "Until",
    "Spend", "Missed in cache", "Wasted", "Share of spend", "Value per USD", "Per million tokens",
}  # fmt: skip
"""Columns in which single cells may be unknown; a whole column may not."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, chdb_url: str) -> Iterator[Any]:
    """A database with a row in every table."""
    from sinks.clickhouse.client import connect
    from sinks.clickhouse.migrate import migrate
    from sinks.clickhouse.writer import Writer

    def connection() -> Any:
        client = connect(chdb_url)
        client.database = "dashboards"
        return client

    client = connection()
    migrate(client, ttl_days_raw=30, ttl_days_windows=400)
    writer = Writer(
        connection,
        database="dashboards",
        spool_dir=tmp_path_factory.mktemp("spool"),
        spool_bytes=100_000_000,
    )
    company.fill(writer)
    assert writer.drain(30)
    writer.close()
    yield client
    client.command("DROP DATABASE dashboards", use_database=False)
    client.close()


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: f"{q.dashboard}: {q.place}")
def test_every_query_runs_and_shows_values(database: Any, query: Query) -> None:
    result = database.query(text(query, {}))
    assert result.row_count > 0
    for name, column in zip(result.column_names, result.result_columns, strict=True):
        known = [v for v in column if v is not None]
        assert known, f"{name} is NULL in every row"
        if name not in ALLOWED_NULLS and query.kind in ("stat", "table"):
            assert len(known) == len(column), f"{name} is NULL in some rows"


CHOICES: list[dict[str, Value]] = [
    {"team": ["search"]},
    {"team": ["(none)"]},
    {"team": ["search", "support"], "model": ["example-large"]},
    {"provider": ["openai"]},
    {"product": ["chat"], "provider": ["openai"]},
    {"api_key_id": ["key-1"], "team": ["search"]},
    {"node": ["node-1"], "pool": ["inference"]},
    {"team": ["it's a trap", 'b"c']},
    {"incident": "cost_spike-000000000000"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: ",".join(c))
def test_every_query_runs_under_filters(database: Any, choice: dict[str, Value]) -> None:
    concerned = [q for q in QUERIES if any(f"${{{name}" in q.sql or f"${name}" in q.sql for name in choice)]
    assert concerned
    for query in concerned:
        try:
            database.query(text(query, choice))
        except ClickHouseError as problem:
            pytest.fail(f"{query.dashboard}: {query.place}: {problem}")


def value(database: Any, dashboard: str, title: str, choice: Mapping[str, Value]) -> Any:
    (query,) = [q for q in QUERIES if q.dashboard == dashboard and q.place == title]
    return database.query(text(query, choice)).result_rows[0][0]


def requests_of(*positions: int) -> int:
    windows = [company.request_window(NOON_NS, seed) for seed in range(company.WINDOWS // 2, company.WINDOWS)]
    leaf = len(company.MEMBERS)
    total = 0
    for window in windows:
        rows = [i for i, s in enumerate(window.series) if len(s.dims) == 5]
        assert len(rows) == leaf
        total += sum(int(window.column("requests")[rows[p]]) for p in positions)
    return total


@pytest.mark.parametrize(
    ("choice", "members"),
    [
        ({}, (0, 1, 2, 3)),
        ({"team": ["search"]}, (0, 1)),
        ({"team": ["(none)"]}, (3,)),
        ({"provider": ["openai"]}, (0, 2)),
        ({"provider": ["openai"], "team": ["search"]}, (0,)),
        ({"product": ["chat"]}, (0, 2)),
        ({"prompt_version": ["v2"]}, (1,)),
        ({"team": ["search"], "api_key_id": ["key-2"]}, (1,)),
    ],
    ids=str,
)  # fmt: skip
def test_a_filter_counts_every_request_once(database: Any, choice: dict[str, Value], members: tuple[int, ...]) -> None:
    assert value(database, "tidegauge-attribution", "Requests", choice) == requests_of(*members)
    if "api_key_id" not in choice:
        query = next(q for q in QUERIES if q.place == "Spend by team, product, provider and model")
        result = database.query(text(query, choice))
        assert sum(result.result_columns[result.column_names.index("Requests")]) == requests_of(*members)


def test_a_filter_that_no_grouping_set_knows_shows_nothing(database: Any) -> None:
    assert value(database, "tidegauge-attribution", "Requests", {"api_key_id": ["key-1"], "product": ["chat"]}) == 0


def test_stacked_spend_by_team_adds_up_to_the_total(database: Any) -> None:
    spend = value(database, "tidegauge-attribution", "Spend", {})
    (query,) = [q for q in QUERIES if q.place == "Spend per hour by team" and q.dashboard == "tidegauge-attribution"]
    stacked = sum(row[2] or 0 for row in database.query(text(query, {})).result_rows)
    assert stacked * INTERVAL_MS / 3_600_000 == pytest.approx(spend)


def test_gpu_hours_are_counted_once_under_every_filter(database: Any) -> None:
    hours = company.WINDOWS // 2 * 10 / 3_600
    for choice, gpus in (
        ({}, 3),
        ({"cluster": ["east"]}, 2),
        ({"team": ["(none)"]}, 1),
        ({"pool": ["inference"], "team": ["search"]}, 1),
    ):
        assert value(database, "tidegauge-capacity", "GPU hours", choice) == pytest.approx(hours * gpus)


def test_unpriced_requests_are_shown_and_have_no_cost(database: Any) -> None:
    query = next(q for q in QUERIES if q.place == "Spend by team, product, provider and model")
    result = database.query(text(query, {"model": ["mystery"]}))
    row = dict(zip(result.column_names, result.result_rows[0], strict=True))
    assert row["Spend"] is None
    assert row["Unpriced requests"] == row["Requests"] > 0


def test_evidence_of_a_resolved_incident_is_kept(database: Any) -> None:
    choice: dict[str, Value] = {"kind": ["cost_spike"]}
    for place, shares in (
        ("Contributors: which members carry the change", [0.8]),
        ("Factors: what moved", [0.75, 0.25]),
    ):
        (query,) = [q for q in QUERIES if q.place == place]
        result = database.query(text(query, choice))
        assert list(result.result_columns[result.column_names.index("Share of the change")]) == shares


def test_annotations_name_time_end_title_text_and_tags(database: Any) -> None:
    for query in QUERIES:
        if query.kind == "annotation":
            result = database.query(text(query, {}))
            assert list(result.column_names) == ["time", "timeEnd", "title", "text", "tags"]
            assert all(row[1] >= row[0] for row in result.result_rows)
