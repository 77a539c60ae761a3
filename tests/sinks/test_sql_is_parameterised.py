"""SQL gets its values as bound parameters; where text is put into a statement, this list says why that is safe."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import BadSettings
from sinks.clickhouse.client import parse
from tests import builders

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("schemas", "detectors", "sinks", "flows")
RUNS_SQL = frozenset(
    {"query", "command", "_command", "execute", "executemany", "executescript", "query_df", "query_np", "raw_query"}
)

ALLOWED = {
    ("sinks/clickhouse/migrate.py", "database"): "checked by `client.parse`: letters, digits and _ only",
    ("sinks/clickhouse/migrate.py", "table"): "a constant of `tables.py`",
    ("sinks/clickhouse/migrate.py", "int(days)"): "a whole number",
    ("flows/recovery_store.py", "table"): "one of four constants, beside the loop",
    ("sinks/outbox_file.py", "FORMAT"): "a constant",
    ("sinks/outbox_review.py", "given_up"): "a condition without values, beside the statement",
}
"""(file, expression): why it may stand in a statement."""


def built_statements() -> Iterator[tuple[str, int, str]]:
    """File, line and expression of everything that is put into a statement other than as a parameter."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute | ast.Name)):
                    continue
                function = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if function not in RUNS_SQL:
                    continue
                for argument in node.args[:2] if function == "_command" else node.args[:1]:
                    yield from ((name, node.lineno, put_in) for put_in in _put_in(argument))


def _put_in(argument: ast.expr) -> Iterator[str]:
    for node in ast.walk(argument):
        if isinstance(node, ast.FormattedValue):
            yield ast.unparse(node.value)
            continue
        joined = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add)
        method = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("format", "join", "replace")
        if joined or method:
            yield ast.unparse(node)


def test_no_statement_is_put_together_from_values() -> None:
    found = list(built_statements())
    assert {(file, expression) for file, _, expression in found} <= ALLOWED.keys(), found


def test_the_search_finds_what_it_looks_for() -> None:
    assert any(file == "sinks/clickhouse/migrate.py" for file, _, _ in built_statements())


@pytest.mark.parametrize("name", ["x`; DROP TABLE requests", "x%60y", "a.b", "a b", "ä", "1a", "x;y", "x'y", "x/y"])
def test_a_database_name_is_a_name(name: str) -> None:
    with pytest.raises(BadSettings, match="letters, digits and _ only"):
        parse(f"http://localhost:8123/{name}")


HOSTILE = [
    "'; DROP TABLE requests; --",
    "\\'; DROP TABLE requests; --",
    "`x`",
    "{x:String}",
    "%(x)s",
    "a\\",
    "\x00",
    "*/",
    "${team}",
]


def test_hostile_dimension_values_are_stored_as_they_are(database: Any, writer_for: Any) -> None:
    n = len(HOSTILE)
    columns = builders.request_columns(n, team=HOSTILE)
    writer = writer_for(database)
    writer.requests(columns, builders.costs_for(columns), "v'1")
    assert writer.drain(60)
    rows = database.query("SELECT team FROM requests ORDER BY team").result_rows
    assert sorted(HOSTILE) == [row[0] for row in rows]
    for value in HOSTILE:
        found = database.query("SELECT count() FROM requests WHERE team = {team:String}", parameters={"team": value})
        assert found.first_row[0] == 1, value
