"""Panels and dashboards as plain dictionaries in Grafana's schema, with the few options that we use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

DATASOURCE = {"type": "grafana-clickhouse-datasource", "uid": "clickhouse"}
PLUGIN_VERSION = "4.20.0"
SCHEMA_VERSION = 41
"""Of Grafana 11.6; newer versions migrate it on load."""

MIN_INTERVAL = "1m"
"""Smallest interval of a graph. Grafana's next larger ones are all multiples of it, so that every interval holds whole
windows; from 10 s on it would also take 15 s, which holds one or two windows of 10 s in turn."""

WIDTH = 24

COLORS = {
    "busy": "green", "held idle": "orange", "free": "blue", "unhealthy": "red", "critical": "dark-red", "error": "red",
    "warning": "orange", "info": "blue",
}  # fmt: skip

Json = dict[str, Any]


class Column(NamedTuple):
    """How one column of a table is shown.

    Parameters
    ----------
    unit
        Grafana unit.
    link
        URL that a click opens; `${__value.text}` is the cell.
    width
        Pixels.
    """

    unit: str = ""
    link: str = ""
    width: int = 0


class Panel(NamedTuple):
    """One panel: what it shows, the question that it answers, and its query."""

    kind: str
    title: str
    question: str
    sql: str
    width: int
    height: int
    format: int
    options: Json
    defaults: Json
    overrides: list[Json]
    min_interval: str = MIN_INTERVAL


def target(sql: str, format: int, ref: str = "A") -> Json:
    """A query; format 0 is a time series, 1 a table."""
    return {
        "datasource": DATASOURCE,
        "editorType": "sql",
        "format": format,
        "pluginVersion": PLUGIN_VERSION,
        "queryType": "timeseries" if format == 0 else "table",
        "rawSql": sql,
        "refId": ref,
    }


def timeseries(
    title: str, question: str, sql: str, unit: str, *,
    width: int = 12, height: int = 8, stack: bool = False, bars: bool = False, max_value: float | None = None,
) -> Panel:  # fmt: skip
    """Values over time; a column `series` names the lines."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 25 if stack else 5,
        "lineWidth": 1,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stack else "none"},
    }
    defaults: Json = {"color": {"mode": "palette-classic"}, "custom": custom, "unit": unit, "min": 0}
    if " AS series" in sql:
        defaults["displayName"] = "${__field.labels.series}"
    if max_value is not None:
        defaults["max"] = max_value
    options: Json = {
        "legend": {"calcs": ["mean", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    overrides = [_color(name, color) for name, color in COLORS.items() if f"`{name}`" in sql or f"AS {name}" in sql]
    return Panel("timeseries", title, question, sql, width, height, 0, options, defaults, overrides)


def stat(
    title: str, question: str, sql: str, unit: str, *,
    width: int = 4, warn: float | None = None, alarm: float | None = None, decimals: int | None = None,
) -> Panel:  # fmt: skip
    """One number; coloured from `warn` and `alarm` on."""
    steps: list[Json] = [{"color": "text" if warn is None else "green", "value": None}]
    steps += [{"color": c, "value": v} for c, v in (("orange", warn), ("red", alarm)) if v is not None]
    defaults: Json = {"color": {"mode": "thresholds"}, "unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if decimals is not None:
        defaults["decimals"] = decimals
    options: Json = {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "value",
    }
    return Panel("stat", title, question, sql, width, 4, 1, options, defaults, [])


def table(
    title: str, question: str, sql: str, columns: Mapping[str, Column], *, width: int = 24, height: int = 9,
) -> Panel:  # fmt: skip
    """Rows; `columns` by heading; those that the query does not have are left out."""
    overrides = []
    for name, column in columns.items():
        if f"AS `{name}`" not in sql and f"AS {name}" not in sql:
            continue
        properties: list[Json] = []
        if column.unit:
            properties.append({"id": "unit", "value": column.unit})
        if column.link:
            properties.append({"id": "links", "value": [{"title": f"Open {name.lower()}", "url": column.link}]})
        if column.width:
            properties.append({"id": "custom.width", "value": column.width})
        overrides.append({"matcher": {"id": "byName", "options": name}, "properties": properties})
    defaults: Json = {"custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True}}
    options: Json = {"cellHeight": "sm", "footer": {"show": False}, "showHeader": True}
    return Panel("table", title, question, sql, width, height, 1, options, defaults, overrides)


def _color(name: str, color: str) -> Json:
    value = {"fixedColor": color, "mode": "fixed"}
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": value}]}


class Row(NamedTuple):
    """A titled row of panels, which flow from left to right."""

    title: str
    panels: Sequence[Panel]


class Dashboard(NamedTuple):
    """One dashboard before its layout."""

    slug: str
    title: str
    purpose: str
    variables: Sequence[Json]
    rows: Sequence[Row]
    annotations: Sequence[Json]
    time_from: str = "now-6h"


def layout(dashboard: Dashboard) -> Json:
    """The dashboard's JSON."""
    panels: list[Json] = []
    y = 0
    for row in dashboard.rows:
        panels.append(
            {
                "collapsed": False,
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
                "id": len(panels) + 1,
                "panels": [],
                "title": row.title,
                "type": "row",
            }
        )
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                y, x, tallest = y + tallest, 0, 0
            panels.append(_panel(panel, len(panels) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    own_annotations = {
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    }
    return {
        "annotations": {"list": [own_annotations, *dashboard.annotations]},
        "description": dashboard.purpose,
        "editable": True,
        "graphTooltip": 1,
        "id": None,
        "links": [
            {
                "asDropdown": False,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "tags": ["tidegauge"],
                "targetBlank": False,
                "title": "Tidegauge",
                "type": "dashboards",
            }
        ],
        "panels": panels,
        "refresh": "1m",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["tidegauge"],
        "templating": {"list": list(dashboard.variables)},
        "time": {"from": dashboard.time_from, "to": "now"},
        "timezone": "utc",
        "title": dashboard.title,
        "uid": f"tidegauge-{dashboard.slug}",
        "version": 1,
    }


def _panel(panel: Panel, number: int, x: int, y: int) -> Json:
    return {
        "datasource": DATASOURCE,
        "description": panel.question,
        "fieldConfig": {"defaults": panel.defaults, "overrides": panel.overrides},
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        "id": number,
        "interval": panel.min_interval,
        "options": panel.options,
        "targets": [target(panel.sql, panel.format)],
        "title": panel.title,
        "type": panel.kind,
    }
