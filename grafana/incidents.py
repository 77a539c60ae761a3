"""Incidents: what is open, what was, how it explains itself, and what the detectors saw."""

from __future__ import annotations

from grafana.incident_sql import (
    CONTRIBUTORS,
    FACTORS,
    LATEST,
    OPEN_COLUMNS,
    OPENED,
    RECENT,
    REVISIONS,
    SCORES,
    STRANGEST,
    VARIABLES,
    open_incidents,
)
from grafana.panels import Column, Dashboard, Row, stat, table, timeseries
from grafana.variables import incident_annotations, of_incidents, query_variable, text_variable
from schemas.incident import KINDS, SEVERITIES


def _one(expression: str, name: str, condition: str = "1 = 1") -> str:
    return f"SELECT {expression} AS {name}\n{LATEST}\n    AND {condition}"


_TO_DETECT = "quantileExact(0.5)(dateDiff('second', opened_at, detected_at))"
_DURATION = "quantileExactOrNull(0.5)(dateDiff('second', opened_at, assumeNotNull(resolved_at)))"
_IMPACT = "sum(impact_usd_per_hour)"
_OPEN = "state != 'resolved'"

STATS = [
    stat(
        "Open incidents",
        "How many are open now, of those that touch the chosen time?",
        _one("count()", "open", _OPEN),
        "short",
        warn=1,
        alarm=5,
    ),
    stat("Incidents in the range", "How many touched the chosen time?", _one("count()", "incidents"), "short"),
    stat(
        "Impact of open incidents per hour",
        "What do the open incidents cost per hour, as far as money can say it?",
        _one(_IMPACT, "impact", _OPEN),
        "currencyUSD",
    ),
    stat(
        "Time to detect, median",
        "How long after its start is an incident found, in event time?",
        _one(_TO_DETECT, "seconds"),
        "s",
    ),
    stat(
        "Duration, median",
        "How long does a resolved incident last?",
        _one(_DURATION, "seconds", "state = 'resolved'"),
        "s",
    ),
    stat(
        "Last change not sent",
        "How many incidents had a last change that nobody was told of (silence, maintenance, small update)?",
        _one("countIf(NOT notify)", "unsent"),
        "short",
    ),
]

TABLE_COLUMNS = {
    **OPEN_COLUMNS,
    "Until": Column("dateTimeAsIso", width=180),
    "Time to detect": Column("s"),
    "Duration": Column("s"),
    "Share of the change": Column("percentunit"),
    "Written": Column("dateTimeAsIso", width=180),
    "Incident": Column(link="/d/tidegauge-incidents?var-incident=${__value.text}&${__url_time_range}"),
    "Highest score": Column("percentunit"),
    "When": Column("dateTimeAsIso", width=180),
    "Series": Column(width=320),
    "Member": Column(width=320),
}


def _columns(sql: str) -> dict[str, Column]:
    return {name: column for name, column in TABLE_COLUMNS.items() if f"AS `{name}`" in sql}


def _variables() -> list[dict[str, object]]:
    kinds = "SELECT arrayJoin(" + str(list(KINDS)) + ") AS value"
    severities = "SELECT arrayJoin(" + str(list(SEVERITIES)) + ") AS value"
    return [
        query_variable("kind", kinds),
        query_variable("severity", severities),
        *of_incidents(("team", "provider", "model")),
        text_variable("incident", "incident id"),
    ]


DASHBOARD = Dashboard(
    "incidents",
    "Tidegauge: incidents",
    "Which incidents are open, which were, and why does Tidegauge say so?",
    _variables(),
    [
        Row("At a glance", STATS),
        Row(
            "Open now",
            [
                table(
                    "Open incidents, worst first",
                    "What is wrong at this moment, where, and what helps?",
                    open_incidents(VARIABLES),
                    OPEN_COLUMNS,
                ),
            ],
        ),
        Row(
            "In the range",
            [
                timeseries(
                    "Incidents opened, by kind",
                    "When did incidents start, and of which kinds?",
                    OPENED,
                    "short",
                    width=24,
                    stack=True,
                    bars=True,
                ),
                table(
                    "Incidents that touched the range",
                    "What happened, for how long, and how quickly was it seen?",
                    RECENT,
                    _columns(RECENT),
                    height=11,
                ),
            ],
        ),
        Row(
            "Evidence",
            [
                table(
                    "Contributors: which members carry the change",
                    "Whose requests or GPUs made it happen?",
                    CONTRIBUTORS,
                    _columns(CONTRIBUTORS),
                    width=14,
                ),
                table(
                    "Factors: what moved",
                    "Was it more requests, longer ones, dearer ones or fewer cache reads?",
                    FACTORS,
                    _columns(FACTORS),
                    width=10,
                ),
                table(
                    "Revisions",
                    "How did each incident develop, and which changes were sent?",
                    REVISIONS,
                    _columns(REVISIONS),
                ),
            ],
        ),
        Row(
            "What the detectors saw",
            [
                timeseries(
                    "Highest score by kind and detector",
                    "What looked strange, even where no incident was opened? Every 0.1 is ten times less likely.",
                    SCORES,
                    "percentunit",
                    width=24,
                    max_value=1.0,
                ),
                table(
                    "Strangest series",
                    "Which series were judged the strangest in the range?",
                    STRANGEST,
                    _columns(STRANGEST),
                ),
            ],
        ),
    ],
    incident_annotations(("kind", "severity", "team", "provider", "model")),
    time_from="now-24h",
)
