"""The dashboards over what the real flow wrote, from a short simulated time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from grafana.build import ROOT
from tests.grafana.macros import expand
from tests.grafana.queries import INTERVAL_MS, QUERIES, defaults

MINUTES = 6
NEEDS_INCIDENTS = {"tidegauge-incidents"}
MAY_BE_EMPTY = {
    "Models without a price", "Incidents open now", "GPUs with faults", "Incidents", "Change against the time before",
}  # fmt: skip
"""What a quiet quarter of an hour without a past need not show."""


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from sinks.clickhouse.client import connect

    folder = tmp_path_factory.mktemp("replay")
    url = f"chdb://{folder / 'db'}"

    def tidegauge(*arguments: str) -> None:
        # In a process of its own: this one may hold another embedded engine.
        subprocess.run(
            [sys.executable, "-m", "flows", *arguments], cwd=ROOT, check=True, capture_output=True, timeout=120
        )

    tidegauge("simulate", "--minutes", str(MINUTES), "--seed", "5", "--rate", "10", "--out", str(folder))
    tidegauge("replay", str(folder / "requests.jsonl.gz"), str(folder / "gpus.jsonl.gz"), "--clickhouse", url)
    client = connect(url)
    yield client
    client.close()


@pytest.fixture(scope="module")
def span(replayed: Any) -> tuple[int, int]:
    sql = (
        "SELECT toUnixTimestamp64Milli(min(window_start)), toUnixTimestamp64Milli(max(window_end)) FROM request_windows"
    )
    first, last = replayed.query(sql).result_rows[0]
    return int(first), int(last)


@pytest.mark.slow
def test_panels_show_what_a_replay_wrote_and_count_it_once(replayed: Any, span: tuple[int, int]) -> None:
    assert span[1] - span[0] > (MINUTES - 2) * 60_000
    empty = []
    for query in QUERIES:
        result = replayed.query(expand(query.sql, *span, INTERVAL_MS, defaults(query.dashboard)))
        unknown = [
            n for n, c in zip(result.column_names, result.result_columns, strict=True) if all(v is None for v in c)
        ]
        if (result.row_count == 0 or unknown) and query.dashboard not in NEEDS_INCIDENTS:
            empty.append((query.dashboard, query.place))
    assert not [e for e in empty if e[1] not in MAY_BE_EMPTY]

    # The same test, so that parallel test runs replay once.
    (requests,) = [q for q in QUERIES if q.dashboard == "tidegauge-attribution" and q.place == "Requests"]
    shown = replayed.query(expand(requests.sql, *span, INTERVAL_MS, defaults(requests.dashboard))).first_row[0]
    assert shown == replayed.query("SELECT count() FROM requests_final").first_row[0] > 1_000
