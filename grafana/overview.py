"""The overview: the four disciplines at a glance."""

from __future__ import annotations

from grafana.incident_sql import OPEN_COLUMNS, open_incidents
from grafana.panels import Dashboard, Row, stat, table, timeseries
from grafana.sql import gpu_rows, named, over_time, per_hour, ratio, request_rows, single, top, usd
from grafana.variables import incident_annotations, of_requests
from sinks.clickhouse.quantiles import merged_quantile

VARIABLES = ("team", "provider", "model")
REQUESTS, GPUS = "request_windows_final", "gpu_windows_final"
ROWS = request_rows(VARIABLES)
BY_TEAM = request_rows(VARIABLES, ["team"])
ALL_GPUS = gpu_rows(())
GPU_MS = "busy_ms + held_idle_ms + free_ms + unhealthy_ms"

STATS = [
    stat(
        "Spend in the range",
        "What did all requests of the chosen time cost?",
        single(REQUESTS, ROWS, usd("cost_usd"), "spend"),
        "currencyUSD",
    ),
    stat(
        "Requests in the range",
        "How many requests were made?",
        single(REQUESTS, ROWS, "sum(requests)", "requests"),
        "short",
    ),
    stat(
        "Failed share of requests",
        "Which share of requests failed?",
        single(REQUESTS, ROWS, ratio("errors", "requests"), "failed"),
        "percentunit",
        warn=0.02,
        alarm=0.05,
        decimals=2,
    ),
    stat(
        "Latency, 95th percentile",
        "How long do successful requests take, all but the slowest 5 %? From merged sketches.",
        single(REQUESTS, ROWS, merged_quantile("latency_ms", 0.95), "p95"),
        "ms",
    ),
    stat(
        "Input read from the prompt cache",
        "Which share of input tokens came from a prompt cache?",
        single(REQUESTS, ROWS, ratio("cache_read_tokens", "input_tokens"), "cached"),
        "percentunit",
        decimals=1,
    ),
    stat(
        "Requests without a price",
        "Which share of requests has no known price, so that the spend above is too low?",
        single(REQUESTS, ROWS, ratio("unpriced_requests", "requests"), "unpriced"),
        "percentunit",
        warn=0.0001,
        alarm=0.05,
        decimals=2,
    ),
    stat(
        "Open incidents",
        "How many incidents are open now?",
        "SELECT count() AS open\nFROM incidents_latest\nWHERE state != 'resolved'",
        "short",
        warn=1,
        alarm=5,
    ),
    stat(
        "GPUs at work",
        "Which share of GPU time was busy?",
        single(GPUS, ALL_GPUS, ratio("busy_ms", GPU_MS), "busy"),
        "percentunit",
        decimals=1,
    ),
    stat(
        "Cost of GPUs that did nothing",
        "What did idle and free GPUs cost in the chosen time?",
        single(GPUS, ALL_GPUS, "toFloat64(sum(held_idle_usd + free_usd))", "idle"),
        "currencyUSD",
    ),
    stat(
        "Spend without a result",
        "What did failed requests and retries cost?",
        single(REQUESTS, ROWS, usd("wasted_usd"), "wasted"),
        "currencyUSD",
    ),
    stat(
        "Savings missed in the prompt cache",
        "What would repeated prompt prefixes have saved, had they been read from the cache?",
        single(REQUESTS, ROWS, usd("missed_cache_usd"), "missed"),
        "currencyUSD",
    ),
    stat(
        "Age of the newest window",
        "How fresh is this data? Large in a replay of old traces.",
        "SELECT dateDiff('second', max(window_end), now()) AS age\nFROM request_windows\nWHERE grouping = ''",
        "s",
        warn=120,
        alarm=600,
    ),
]

GRAPHS = [
    timeseries(
        "Spend per hour by team",
        "Who spends how much, and when did it change? Teams beyond the twelve largest are shown together.",
        over_time(
            REQUESTS,
            BY_TEAM,
            [(per_hour(usd("cost_usd")), "spend")],
            by=top(named("team"), "sum(cost_usd)", REQUESTS, BY_TEAM),
        ),
        "currencyUSD",
        stack=True,
    ),
    timeseries(
        "Failed share of requests over time",
        "When did requests fail, and for how many?",
        over_time(REQUESTS, ROWS, [(ratio("errors", "requests"), "failed")]),
        "percentunit",
    ),
    timeseries(
        "Latency and time to first token, 95th percentile",
        "Has the service become slower? Percentiles are computed from merged sketches.",
        over_time(
            REQUESTS,
            ROWS,
            [(merged_quantile("latency_ms", 0.95), "latency"), (merged_quantile("ttft_ms", 0.95), "first token")],
        ),
        "ms",
    ),
    timeseries(
        "GPUs by state",
        "How many GPUs work, idle, are free or broken, on average per interval?",
        over_time(
            GPUS,
            ALL_GPUS,
            [
                (f"sum({state}_ms) / 1000 / $__interval_s", state.replace("_", " "))
                for state in ("busy", "held_idle", "free", "unhealthy")
            ],
        ),
        "short",
        stack=True,
    ),
]

DASHBOARD = Dashboard(
    "overview",
    "Tidegauge: overview",
    "How are cost, quality and capacity doing right now, and what needs somebody's attention?",
    of_requests(VARIABLES),
    [
        Row("At a glance", STATS),
        Row(
            "What needs attention",
            [
                table(
                    "Incidents open now",
                    "What is wrong at this moment, since when, and what does it cost?",
                    open_incidents(VARIABLES),
                    OPEN_COLUMNS,
                )
            ],
        ),
        Row("How it developed", GRAPHS),
    ],
    incident_annotations(VARIABLES),
)
