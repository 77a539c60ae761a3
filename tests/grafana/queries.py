"""Every query of the checked-in dashboards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from grafana.build import OUT
from tests.grafana import company
from tests.grafana.macros import ALL, Value, expand

INTERVAL_MS = 60_000


class Query(NamedTuple):
    dashboard: str
    place: str
    sql: str
    kind: str


def dashboards() -> dict[str, dict[str, Any]]:
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted(OUT.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [p for p in dashboard["panels"] if p["type"] != "row"]


def queries() -> Iterator[Query]:
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield Query(name, panel["title"], target["rawSql"], panel["type"])
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield Query(name, f"${variable['name']}", variable["query"], "variable")
        for annotation in dashboard["annotations"]["list"]:
            if "builtIn" not in annotation:
                yield Query(name, annotation["name"], annotation["target"]["rawSql"], "annotation")


QUERIES = list(queries())


def defaults(name: str) -> dict[str, Value]:
    """Every variable of a dashboard as it is when the dashboard opens."""
    out: dict[str, Value] = {}
    for variable in dashboards()[name]["templating"]["list"]:
        value = variable["current"]["value"]
        out[variable["name"]] = ALL if value == [ALL] else value
    return out


def text(query: Query, variables: Mapping[str, Value]) -> str:
    return expand(query.sql, company.FROM_MS, company.TO_MS, INTERVAL_MS, {**defaults(query.dashboard), **variables})
