from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from schemas.request_window import SKETCHES
from sinks.clickhouse.migrate import RAW_TABLES, WINDOW_TABLES
from sinks.clickhouse.quantiles import merged_quantile
from tests import builders

DOCUMENT = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", DOCUMENT, re.DOTALL)


def squeezed(sql: str) -> str:
    return re.sub(r"\s+", "", sql)


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_document_runs(chdb_client: Any, query: str) -> None:
    chdb_client.query(query)


def test_the_document_gives_the_expression_that_the_program_uses() -> None:
    assert squeezed(merged_quantile("latency_ms", 0.95)) in squeezed("".join(QUERIES))


def test_the_documented_percentile_is_that_of_the_rows(chdb_client: Any, writer_for: Any) -> None:
    windows = builders.request_windows()
    writer = writer_for(chdb_client)
    writer.request_windows(windows)
    assert writer.drain(30)
    (query,) = (q for q in QUERIES if "sumMap" in q)
    (row,) = chdb_client.query(query).result_rows
    assert row[1] == pytest.approx(windows.quantiles["latency_ms"][1, 1], rel=1e-9)


def test_every_table_and_view_is_documented(chdb_client: Any) -> None:
    names = {row[0] for row in chdb_client.query("SHOW TABLES").result_rows}
    assert {*RAW_TABLES, *WINDOW_TABLES} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in DOCUMENT] == []


@pytest.mark.parametrize(("sketch", "q"), [("latency", 0.5), (SKETCHES[0], 1.5)])
def test_a_quantile_of_something_else_is_an_error(sketch: str, q: float) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        merged_quantile(sketch, q)
