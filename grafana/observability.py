"""Observability: errors by cause, latency, first token, time per output token, and whether telemetry is whole."""

from __future__ import annotations

from grafana.panels import Column, Dashboard, Row, stat, table, timeseries
from grafana.sql import listed, named, over_time, ratio, request_rows, single, top
from grafana.variables import custom_variable, incident_annotations, of_requests
from schemas.cause import CAUSES
from schemas.request_window import SKETCHES
from sinks.clickhouse.quantiles import merged_quantile

VARIABLES = ("team", "product", "provider", "model", "prompt_version", "api_key_id")
TABLE = "request_windows_final"
ROWS = request_rows(VARIABLES)
BY_MODEL = request_rows(VARIABLES, ["provider", "model"])
MODEL = f"concat({named('provider')}, ' / ', {named('model')})"
TOP_MODEL = top(MODEL, "sum(requests)", TABLE, BY_MODEL)

BAD = "sum(errors) - sum(errors_bad_request)"
"""Failures that count against an objective by default: all but the callers' own mistakes."""

BURN = f"({BAD}) / nullIf(sum(requests), 0) / (1 - toFloat64('${{objective}}'))"

_WIDER = request_rows(VARIABLES, time=False)
LONG_BURN = f"""SELECT
    $__timeInterval_ms(minute) AS time,
    max(short) AS `5 minutes`,
    max(long) AS `1 hour`
FROM (
    SELECT
        minute,
        sum(bad) OVER five / nullIf(sum(all) OVER five, 0) / (1 - toFloat64('${{objective}}')) AS short,
        sum(bad) OVER hour / nullIf(sum(all) OVER hour, 0) / (1 - toFloat64('${{objective}}')) AS long
    FROM (
        SELECT toStartOfMinute(window_start) AS minute, {BAD} AS bad, sum(requests) AS all
        FROM {TABLE}
        WHERE {_WIDER.replace(chr(10), chr(10) + "        ")}
            AND window_start >= $__fromTime_ms - toIntervalHour(1)
            AND window_start <= $__toTime_ms
        GROUP BY minute)
    WINDOW
        five AS (ORDER BY toUnixTimestamp(minute) RANGE BETWEEN 299 PRECEDING AND CURRENT ROW),
        hour AS (ORDER BY toUnixTimestamp(minute) RANGE BETWEEN 3599 PRECEDING AND CURRENT ROW))
WHERE minute >= $__fromTime_ms
GROUP BY time
ORDER BY time"""

CAUSE_LINES = [(f"sum(errors_{c.label})", c.label.replace("_", " ").capitalize()) for c in CAUSES]

_CAUSE_COLUMNS = ", ".join(f"errors_{c.label}" for c in CAUSES)
ERRORS_BY_CAUSE = f"""SELECT
    cause AS `Cause`,
    {named("provider")} AS `Provider`,
    {named("model")} AS `Model`,
    sum(failed) AS `Failed requests`
FROM {TABLE}
ARRAY JOIN
    [{_CAUSE_COLUMNS}] AS failed,
    {[c.label for c in CAUSES]} AS cause
WHERE {BY_MODEL}
    AND failed > 0
GROUP BY `Cause`, `Provider`, `Model`
ORDER BY `Failed requests` DESC
LIMIT 100"""

_CAUSE_SUMS = ", ".join(f"sum(errors_{c.label})" for c in CAUSES)
_TOP_CAUSE = f"if(sum(errors) = 0, '', {[c.label for c in CAUSES]}[indexOf([{_CAUSE_SUMS}], greatest({_CAUSE_SUMS}))])"
HEALTH = listed(
    TABLE,
    BY_MODEL,
    [(named("provider"), "Provider"), (named("model"), "Model")],
    [
        ("sum(requests)", "Requests"),
        (ratio("errors", "requests"), "Failed"),
        (_TOP_CAUSE, "Most frequent cause"),
        (ratio("retries", "requests"), "Retries"),
        (merged_quantile("latency_ms", 0.5), "Latency p50"),
        (merged_quantile("latency_ms", 0.95), "Latency p95"),
        (merged_quantile("latency_ms", 0.99), "Latency p99"),
        (merged_quantile("ttft_ms", 0.95), "First token p95"),
        (merged_quantile("tpot_ms", 0.95), "Per token p95"),
        (ratio("cache_read_tokens", "input_tokens"), "Cached input"),
    ],
    "`Requests` DESC",
)
MS, SHARE, COUNT = Column("ms"), Column("percentunit"), Column("short")

TELEMETRY = over_time(
    TABLE,
    request_rows(()),
    [("sum(rejected)", "unusable"), ("sum(late)", "late"), ("sum(usage_missing)", "without token counts")],
)
DEAD_LETTERS = """SELECT
    reason AS `Reason`,
    topic AS `Topic`,
    uniqExact(`partition`, `offset`, position) AS `Messages`,
    max(at) AS `Last`,
    argMax(detail, at) AS `Last detail`
FROM dead_letters
WHERE $__timeFilter_ms(at)
GROUP BY `Reason`, `Topic`
ORDER BY `Messages` DESC
LIMIT 100"""
DELAY = """SELECT
    $__timeInterval_ms(window_end) AS time,
    quantileExact(0.5)(dateDiff('second', window_end, inserted_at)) AS `median`,
    max(dateDiff('second', window_end, inserted_at)) AS `slowest`
FROM request_windows
WHERE grouping = '' AND version = 1
    AND $__timeFilter_ms(window_end)
GROUP BY time
ORDER BY time"""


def quantiles_over_time(sketch: str) -> str:
    """Three percentiles over time, from merged sketches."""
    return over_time(TABLE, ROWS, [(merged_quantile(sketch, q), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)])


_NAMES = {
    "latency_ms": ("Latency", "How long do successful requests take?"),
    "ttft_ms": ("Time to first token", "How long do users wait for the first token of a stream?"),
    "tpot_ms": ("Time per output token", "How fast does the text flow after the first token?"),
}
LATENCIES = [
    timeseries(
        f"{_NAMES[s][0]}: 50th, 95th and 99th percentile",
        f"{_NAMES[s][1]} Percentiles of merged sketches, within 1 %.",
        quantiles_over_time(s),
        "ms",
        width=8,
    )
    for s in SKETCHES
]

STATS = [
    stat("Requests", "How many requests were made?", single(TABLE, ROWS, "sum(requests)", "requests"), "short"),
    stat(
        "Failed share",
        "Which share of them failed?",
        single(TABLE, ROWS, ratio("errors", "requests"), "failed"),
        "percentunit",
        warn=0.02,
        alarm=0.05,
        decimals=2,
    ),
    stat(
        "Burn of the error budget",
        "How many times faster than allowed is the chosen objective's error budget used? Bad requests do not count.",
        single(TABLE, ROWS, BURN, "burn"),
        "short",
        warn=1,
        alarm=6,
        decimals=2,
    ),
    stat(
        "Retries",
        "Which share of requests was a second or later attempt?",
        single(TABLE, ROWS, ratio("retries", "requests"), "retries"),
        "percentunit",
        warn=0.05,
        alarm=0.2,
        decimals=2,
    ),
    stat(
        "Latency p95",
        "How long do all but the slowest 5 % of successful requests take?",
        single(TABLE, ROWS, merged_quantile("latency_ms", 0.95), "p95"),
        "ms",
    ),
    stat(
        "First token p95",
        "How long do all but the slowest 5 % wait for the first token?",
        single(TABLE, ROWS, merged_quantile("ttft_ms", 0.95), "p95"),
        "ms",
    ),
]

DASHBOARD = Dashboard(
    "observability",
    "Tidegauge: observability",
    "Do requests succeed, how fast are they, and why do they fail?",
    [
        *of_requests(VARIABLES),
        custom_variable("objective", "objective", ["0.9", "0.95", "0.99", "0.995", "0.999"], "0.95"),
    ],
    [
        Row("At a glance", STATS),
        Row(
            "Errors",
            [
                timeseries(
                    "Failed requests by cause",
                    "Why do requests fail: the vendor's quota or capacity, our own limits, or the request itself?",
                    over_time(TABLE, ROWS, CAUSE_LINES),
                    "short",
                    stack=True,
                    bars=True,
                ),
                timeseries(
                    "Failed share by provider and model",
                    "Does one model fail, or all?",
                    over_time(TABLE, BY_MODEL, [(ratio("errors", "requests"), "failed")], by=TOP_MODEL),
                    "percentunit",
                ),
                timeseries(
                    "Burn rate over 5 minutes and 1 hour",
                    "Does the error budget burn now, and has it for a while? Both high: page. 1 uses it up exactly.",
                    LONG_BURN,
                    "short",
                ),
                table(
                    "Failed requests by cause and model",
                    "Which cause struck which model how often?",
                    ERRORS_BY_CAUSE,
                    {"Failed requests": COUNT},
                    width=12,
                    height=8,
                ),
            ],
        ),
        Row(
            "Speed",
            [
                *LATENCIES,
                timeseries(
                    "Latency p95 by provider and model",
                    "Which model became slower?",
                    over_time(TABLE, BY_MODEL, [(merged_quantile("latency_ms", 0.95), "p95")], by=TOP_MODEL),
                    "ms",
                ),
                timeseries(
                    "Requests per second by provider and model",
                    "How much is asked of each model, and did traffic vanish?",
                    over_time(TABLE, BY_MODEL, [("sum(requests) / $__interval_s", "rate")], by=TOP_MODEL),
                    "reqps",
                    stack=True,
                ),
            ],
        ),
        Row(
            "Models compared",
            [
                table(
                    "Health of every model",
                    "Which model fails, retries or waits more than the others?",
                    HEALTH,
                    {
                        "Requests": COUNT,
                        "Failed": SHARE,
                        "Retries": SHARE,
                        "Latency p50": MS,
                        "Latency p95": MS,
                        "Latency p99": MS,
                        "First token p95": MS,
                        "Per token p95": MS,
                        "Cached input": SHARE,
                    },
                ),
            ],
        ),
        Row(
            "Is the telemetry whole?",
            [
                timeseries(
                    "Unusable, late and incomplete events",
                    "Do producers send what we can use? All sources together.",
                    TELEMETRY,
                    "short",
                    width=8,
                    bars=True,
                ),
                timeseries(
                    "From the end of a window to its row",
                    "How long after its end is a window in the database? In a replay this is the age of the input.",
                    DELAY,
                    "s",
                    width=8,
                ),
                table(
                    "Dead letters by reason",
                    "What was refused, and why?",
                    DEAD_LETTERS,
                    {"Last": Column("dateTimeAsIso"), "Messages": COUNT},
                    width=8,
                    height=8,
                ),
            ],
        ),
    ],
    incident_annotations(("team", "product", "provider", "model")),
)
