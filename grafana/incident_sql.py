"""Queries over incidents and scores."""

from __future__ import annotations

from collections.abc import Sequence

from grafana.panels import Column
from grafana.sql import named
from schemas.incident import SEVERITIES

VARIABLES = ("kind", "severity", "team", "provider", "model")
IN_RANGE = "opened_at <= $__toTime_ms AND coalesce(resolved_at, $__toTime_ms) >= $__fromTime_ms"

WHERE_TEXT = (
    "arrayStringConcat(arrayMap((d, v) -> concat(d, ' ', if(v = '', '(none)', v)), "
    "mapKeys(dims), mapValues(dims)), ', ')"
)
SEVERITY_RANK = f"indexOf({list(SEVERITIES)}, toString(severity))"


def chosen_incidents(variables: Sequence[str]) -> str:
    """Conditions: the viewer's filters; an incident that does not name a team concerns every team."""
    out = []
    for name in variables:
        any_value = f"{name} = '' OR " if name in ("team", "provider", "model", "product") else ""
        out.append(f"$__conditionalAll(({any_value}{named(name)} IN (${{{name}:sqlstring}})), ${name})")
    return "\n    AND ".join(out)


LINK = "${__value.raw}"
TEXT = Column(width=420)
OPEN_COLUMNS = {
    "Severity": Column(width=90),
    "Kind": Column(width=160),
    "Summary": TEXT,
    "Since": Column("dateTimeAsIso", width=180),
    "Impact per hour": Column("currencyUSD"),
    "Score": Column("percentunit"),
    "Dashboard": Column(link=LINK),
    "Runbook": Column(link=LINK),
}


def open_incidents(variables: Sequence[str]) -> str:
    """Open incidents, the most severe and most expensive first."""
    return (
        "SELECT\n    severity AS `Severity`,\n    kind AS `Kind`,\n    summary AS `Summary`,\n"
        "    opened_at AS `Since`,\n"
        f"    {WHERE_TEXT} AS `Where`,\n    impact_usd_per_hour AS `Impact per hour`,\n    cause AS `Cause`,\n"
        "    multiIf(retry_helps IS NULL, '', retry_helps, 'yes', 'no') AS `Retry helps`,\n    score AS `Score`,\n"
        "    links['dashboard'] AS `Dashboard`,\n    links['runbook'] AS `Runbook`,\n    incident_id AS `Incident`\n"
        f"FROM incidents_latest\nWHERE state != 'resolved'\n    AND {chosen_incidents(variables)}\n"
        f"ORDER BY {SEVERITY_RANK} DESC, impact_usd_per_hour DESC NULLS LAST, opened_at\nLIMIT 200"
    )


FILTERS = chosen_incidents(VARIABLES)
ONE = "(${incident:sqlstring} = '' OR incident_id = ${incident:sqlstring})"
LATEST = f"FROM incidents_latest\nWHERE {IN_RANGE}\n    AND {FILTERS}"

RECENT = f"""SELECT
    severity AS `Severity`,
    kind AS `Kind`,
    state AS `State`,
    summary AS `Summary`,
    opened_at AS `Since`,
    resolved_at AS `Until`,
    dateDiff('second', opened_at, detected_at) AS `Time to detect`,
    dateDiff('second', opened_at, coalesce(resolved_at, now64(3))) AS `Duration`,
    observed AS `Observed`,
    expected AS `Expected`,
    unit AS `Unit`,
    impact_usd_per_hour AS `Impact per hour`,
    cause AS `Cause`,
    length(related) AS `Related`,
    revision AS `Revisions`,
    notify AS `Last sent`,
    links['dashboard'] AS `Dashboard`,
    incident_id AS `Incident`
{LATEST}
    AND {ONE}
ORDER BY opened_at DESC
LIMIT 500"""


def _evidence(column: str) -> str:
    """Elements of a JSON array from the newest revision that has any: an incident's last revision may only close it."""
    return f"""FROM (
    SELECT incident_id, kind, unit, opened_at, arrayJoin(JSONExtractArrayRaw({column})) AS element
    FROM (
        SELECT incident_id, kind, unit, opened_at, {column}
        FROM incidents
        WHERE {column} NOT IN ('', '[]')
            AND incident_id IN (
                SELECT incident_id
                {LATEST.replace(chr(10), chr(10) + " " * 16)}
                    AND {ONE})
        ORDER BY revision DESC
        LIMIT 1 BY incident_id))
ORDER BY opened_at DESC, incident_id, `Share of the change` DESC
LIMIT 500"""


CONTRIBUTORS = f"""SELECT
    incident_id AS `Incident`,
    kind AS `Kind`,
    JSONExtractRaw(element, 'dims') AS `Member`,
    JSONExtractFloat(element, 'share') AS `Share of the change`,
    JSONExtract(element, 'observed', 'Nullable(Float64)') AS `Observed`,
    JSONExtract(element, 'expected', 'Nullable(Float64)') AS `Expected`,
    unit AS `Unit`
{_evidence("contributors")}"""

FACTORS = f"""SELECT
    incident_id AS `Incident`,
    kind AS `Kind`,
    JSONExtractString(element, 'name') AS `Factor`,
    JSONExtractFloat(element, 'share') AS `Share of the change`
{_evidence("factors")}"""

REVISIONS = f"""SELECT
    inserted_at AS `Written`,
    incident_id AS `Incident`,
    revision AS `Revision`,
    state AS `State`,
    severity AS `Severity`,
    observed AS `Observed`,
    expected AS `Expected`,
    unit AS `Unit`,
    notify AS `Sent`,
    summary AS `Summary`
FROM incidents FINAL
WHERE {IN_RANGE}
    AND {FILTERS}
    AND {ONE}
ORDER BY opened_at DESC, incident_id, revision
LIMIT 500"""

SCORES = """SELECT
    $__timeInterval_ms(window_start) AS time,
    concat(kind, ' (', detector, ')') AS series,
    max(score) AS score
FROM scores_final
WHERE $__timeFilter_ms(window_start)
    AND $__conditionalAll(kind IN (${kind:sqlstring}), $kind)
GROUP BY time, series
ORDER BY time"""

STRANGEST = """SELECT
    kind AS `Kind`,
    detector AS `Detector`,
    series AS `Series`,
    max(score) AS `Highest score`,
    argMax(observed, score) AS `Observed`,
    argMax(expected, score) AS `Expected`,
    argMax(unit, score) AS `Unit`,
    argMax(impact_usd_per_hour, score) AS `Impact per hour`,
    argMax(window_start, score) AS `When`,
    argMax(detail, score) AS `Detail`,
    count() AS `Judgements`
FROM scores_final
WHERE $__timeFilter_ms(window_start)
    AND $__conditionalAll(kind IN (${kind:sqlstring}), $kind)
GROUP BY `Kind`, `Detector`, `Series`
ORDER BY `Highest score` DESC
LIMIT 100"""

OPENED = f"""SELECT
    $__timeInterval_ms(opened_at) AS time,
    kind AS series,
    count() AS incidents
FROM incidents_latest
WHERE $__timeFilter_ms(opened_at)
    AND {FILTERS}
GROUP BY time, series
ORDER BY time"""
