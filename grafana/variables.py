"""Template variables and annotations. Variables bear the names of dimensions: incident links set them by name."""

from __future__ import annotations

from collections.abc import Sequence

from grafana.panels import DATASOURCE, PLUGIN_VERSION, Json, target
from grafana.sql import chosen, named

ALL: Json = {"selected": True, "text": ["All"], "value": ["$__all"]}

_REQUEST_GROUPING = {
    "team": "team", "provider": "provider,model", "model": "provider,model", "api_key_id": "team,api_key_id",
    "product": "team,product,provider,model,prompt_version",
    "prompt_version": "team,product,provider,model,prompt_version",
}  # fmt: skip
"""Smallest grouping set that knows a dimension."""

_HELP = {
    "api_key_id": "Combines with team only: no other grouping set knows keys.",
    "gpu": "UUID, or the index where there is none.",
}


def query_variable(name: str, sql: str, label: str = "") -> Json:
    """A list of values from the tables, several at once, with "All"."""
    return {
        "allowCustomValue": True,
        "current": ALL,
        "datasource": DATASOURCE,
        "definition": sql,
        "description": _HELP.get(name, ""),
        "includeAll": True,
        "label": label or name.removesuffix("_id").replace("_", " "),
        "multi": True,
        "name": name,
        "options": [],
        "query": sql,
        "refresh": 2,
        "sort": 1,
        "type": "query",
    }


def text_variable(name: str, label: str, default: str = "") -> Json:
    """A text that the viewer types."""
    return {
        "current": {"selected": True, "text": default, "value": default},
        "label": label,
        "name": name,
        "options": [],
        "query": default,
        "type": "textbox",
    }


def custom_variable(name: str, label: str, values: Sequence[str], default: str) -> Json:
    """One of some fixed values."""
    return {
        "current": {"selected": True, "text": default, "value": default},
        "includeAll": False,
        "label": label,
        "multi": False,
        "name": name,
        "options": [{"selected": v == default, "text": v, "value": v} for v in values],
        "query": ",".join(values),
        "type": "custom",
    }


def of_requests(dims: Sequence[str]) -> list[Json]:
    """Variables over dimensions of requests."""
    return [query_variable(dim, _of_requests(dim)) for dim in dims]


def _of_requests(dim: str) -> str:
    return (
        f"SELECT DISTINCT {named(dim)} AS value\nFROM request_windows\n"
        f"WHERE grouping = '{_REQUEST_GROUPING[dim]}' AND $__timeFilter_ms(window_start)\nORDER BY value\nLIMIT 1000"
    )


def of_gpus(dims: Sequence[str]) -> list[Json]:
    """Variables over dimensions of GPUs; each list is narrowed by cluster and node where those stand before it."""
    out = []
    for i, dim in enumerate(dims):
        narrowed = "".join(f"\n    AND {chosen(d, gpus=True)}" for d in dims[:i] if d in ("cluster", "node"))
        sql = (
            f"SELECT DISTINCT {named(dim, gpus=True)} AS value\nFROM gpu_windows\n"
            f"WHERE is_gpu AND $__timeFilter_ms(window_start){narrowed}\nORDER BY value\nLIMIT 1000"
        )
        out.append(query_variable(dim, sql))
    return out


def of_both(dims: Sequence[str]) -> list[Json]:
    """Variables over dimensions that requests and GPUs share."""
    out = []
    for dim in dims:
        sql = (
            f"SELECT DISTINCT value FROM (\n    SELECT {named(dim)} AS value FROM request_windows\n"
            f"    WHERE grouping = '{_REQUEST_GROUPING[dim]}' AND $__timeFilter_ms(window_start)\n"
            f"    UNION ALL\n    SELECT {named(dim, gpus=True)} AS value FROM gpu_windows\n"
            f"    WHERE grouping = '{dim}' AND $__timeFilter_ms(window_start))\nORDER BY value\nLIMIT 1000"
        )
        out.append(query_variable(dim, sql))
    return out


def of_incidents(columns: Sequence[str]) -> list[Json]:
    """Variables over columns of incidents."""
    return [
        query_variable(c, f"SELECT DISTINCT {named(c)} AS value\nFROM incidents_latest\nORDER BY value\nLIMIT 1000")
        for c in columns
    ]


def incident_annotations(dims: Sequence[str]) -> list[Json]:
    """Incidents as regions on every graph, narrowed by those filters of the dashboard that an incident knows.

    An incident that does not name a dimension (a provider's outage names no team) concerns all of its values.
    """
    filters = "".join(
        f"\n    AND $__conditionalAll(({dim} = '' OR {dim} IN (${{{dim}:sqlstring}})), ${dim})" for dim in dims
    )
    sql = (
        "SELECT\n    opened_at AS time,\n    coalesce(resolved_at, $__toTime_ms) AS timeEnd,\n"
        "    concat(severity, ': ', kind) AS title,\n    summary AS text,\n"
        "    concat(kind, ',', severity, ',', state) AS tags\nFROM incidents_latest\n"
        "WHERE opened_at <= $__toTime_ms AND coalesce(resolved_at, $__toTime_ms) >= $__fromTime_ms"
        f"{filters}\nORDER BY time\nLIMIT 500"
    )
    return [
        {
            "datasource": DATASOURCE,
            "enable": True,
            "hide": False,
            "iconColor": "red",
            "name": "Incidents",
            "target": {**target(sql, 1, "Anno"), "pluginVersion": PLUGIN_VERSION},
        }
    ]
