"""Capacity: GPU hours by state and cost, engine load, quota headroom."""

from __future__ import annotations

from grafana.fleet import (
    ALL_MS,
    FAULTS,
    FLEET_COLUMNS,
    GPUS,
    HOURS,
    IDLE_USD,
    KV,
    ROWS,
    UTIL,
    WINDOWS,
    by_model,
    by_pool,
    fleet,
    state_lines,
)
from grafana.panels import Dashboard, Row, stat, table, timeseries
from grafana.sql import named, over_time, per_hour, ratio, request_rows, single, top
from grafana.variables import incident_annotations, of_both, of_gpus, of_requests

REQUEST_VARIABLES = ("team", "provider", "model")
REQUESTS = "request_windows_final"
BY_MODEL = request_rows(REQUEST_VARIABLES, ["provider", "model"])
QUOTA_USED = "sum(quota_used_ppm) / nullIf(sum(quota_reports), 0) / 1e6"
QUOTA = over_time(
    REQUESTS,
    BY_MODEL,
    [(f"1 - {QUOTA_USED}", "headroom")],
    by=top(f"concat({named('provider')}, ' / ', {named('model')})", "sum(quota_reports)", REQUESTS, BY_MODEL),
    having="sum(quota_reports) > 0",
)
LIMITED = " + ".join(
    f"errors_{cause}"
    for cause in ("vendor_quota", "vendor_capacity", "concurrency", "self_hosted_saturation", "gateway_limit")
)
REFUSED = over_time(
    REQUESTS,
    BY_MODEL,
    [(f"sum({LIMITED}) / nullIf(sum(requests), 0)", "refused")],
    by=top(f"concat({named('provider')}, ' / ', {named('model')})", f"sum({LIMITED})", REQUESTS, BY_MODEL),
)

STATS = [
    stat(
        "GPU hours",
        "How much GPU time was there?",
        single(GPUS, ROWS, f"sum({ALL_MS}) / {HOURS}", "hours"),
        "short",
        decimals=1,
    ),
    stat(
        "Busy share of GPU time",
        "Which share of it was at work?",
        single(GPUS, ROWS, f"sum(busy_ms) / nullIf(sum({ALL_MS}), 0)", "busy"),
        "percentunit",
        decimals=1,
    ),
    stat(
        "Cost of GPUs that did nothing",
        "What did idle and free GPUs cost?",
        single(GPUS, ROWS, IDLE_USD, "usd"),
        "currencyUSD",
    ),
    stat(
        "Unhealthy GPU hours",
        "How much GPU time was lost to faults?",
        single(GPUS, ROWS, f"sum(unhealthy_ms) / {HOURS}", "hours"),
        "short",
        warn=0.01,
        alarm=1,
        decimals=2,
    ),
    stat(
        "GPU hours without a price",
        "How much GPU time is missing from the costs?",
        single(GPUS, ROWS, f"sum(unpriced_ms) / {HOURS}", "hours"),
        "short",
        warn=0.01,
        decimals=1,
    ),
    stat(
        "Quota headroom",
        "How much of the vendors' rate limits is left on average, where they report it?",
        single(REQUESTS, request_rows(REQUEST_VARIABLES), f"1 - {QUOTA_USED}", "headroom"),
        "percentunit",
        decimals=1,
    ),
]

DASHBOARD = Dashboard(
    "capacity",
    "Tidegauge: capacity",
    "Is there enough capacity, is it used, and where is it lost?",
    [
        *of_gpus(("cluster", "node", "pool", "gpu_model", "gpu")),
        *of_both(("team", "model")),
        *of_requests(("provider",)),
    ],
    [
        Row("At a glance", STATS),
        Row(
            "GPU hours and their cost",
            [
                timeseries(
                    "GPUs by state",
                    "How many GPUs work, idle, are free or broken, on average per interval?",
                    over_time(GPUS, ROWS, state_lines("ms", "sum({}) / 1000 / $__interval_s")),
                    "short",
                    stack=True,
                ),
                timeseries(
                    "GPU cost per hour by state",
                    "What does each state cost per hour? GPUs without a price are left out.",
                    over_time(GPUS, ROWS, state_lines("usd", per_hour("toFloat64(sum({}))"))),
                    "currencyUSD",
                    stack=True,
                ),
                timeseries(
                    "Utilisation by pool",
                    "Which pool is full, which is empty? Weighted by time.",
                    by_pool(UTIL, "util"),
                    "percentunit",
                    max_value=1.0,
                ),
                timeseries(
                    "Memory used by pool",
                    "Is memory the limit?",
                    by_pool(ratio("memory_used_bytes", "memory_total_bytes"), "memory"),
                    "percentunit",
                    max_value=1.0,
                ),
            ],
        ),
        Row(
            "Engines",
            [
                timeseries(
                    "Requests waiting, by model",
                    "Do requests queue? That is saturation, whatever GPU utilisation says.",
                    by_model(
                        [(f"sum(waiting_milli) / 1000 / {WINDOWS}", "waiting")], "max(requests_waiting_max) IS NOT NULL"
                    ),
                    "short",
                ),
                timeseries(
                    "Requests running, by model",
                    "How many requests does each model's engine work on at once?",
                    by_model(
                        [(f"sum(running_milli) / 1000 / {WINDOWS}", "running")], "max(requests_running_max) IS NOT NULL"
                    ),
                    "short",
                ),
                timeseries(
                    "KV cache in use, by model",
                    "Is the KV cache full, so that requests are preempted?",
                    by_model([(KV, "kv")], "sum(kv_cache_samples) > 0"),
                    "percentunit",
                    max_value=1.0,
                ),
                timeseries(
                    "Preemptions and tokens per second",
                    "Does the engine throw work away, and what does it deliver?",
                    over_time(
                        GPUS,
                        ROWS,
                        [
                            ("sum(preemptions)", "preemptions"),
                            (f"sum(tokens_milli) / 1000 / {WINDOWS}", "tokens per second"),
                        ],
                    ),
                    "short",
                ),
            ],
        ),
        Row(
            "Vendors' quotas",
            [
                timeseries(
                    "Quota headroom by provider and model",
                    "How much of the rate limit is left, on average over the reports?",
                    QUOTA,
                    "percentunit",
                    max_value=1.0,
                ),
                timeseries(
                    "Share refused for lack of capacity or quota",
                    "Who turns requests away: quota, capacity, concurrency, our own engines or gateway?",
                    REFUSED,
                    "percentunit",
                ),
            ],
        ),
        Row(
            "Hardware",
            [
                timeseries(
                    "Power",
                    "How much power do the GPUs draw?",
                    over_time(GPUS, ROWS, [(f"sum(power_mw) / 1000 / {WINDOWS}", "power")]),
                    "watt",
                    width=8,
                ),
                timeseries(
                    "Hottest GPU and throttled samples",
                    "Is heat or a power limit slowing GPUs down?",
                    over_time(
                        GPUS,
                        ROWS,
                        [("max(temperature_c_max)", "hottest, °C"), ("sum(throttled_samples)", "throttled samples")],
                    ),
                    "short",
                    width=8,
                ),
                timeseries(
                    "XIDs and uncorrectable errors",
                    "Are GPUs failing?",
                    over_time(
                        GPUS,
                        ROWS,
                        [
                            ("sum(xid_events)", "XIDs"),
                            ("sum(xid_hardware_events)", "hardware XIDs"),
                            ("sum(ecc_events)", "uncorrectable errors"),
                        ],
                    ),
                    "short",
                    width=8,
                    bars=True,
                ),
                table("GPUs with faults", "Which GPU must be looked at?", FAULTS, FLEET_COLUMNS),
            ],
        ),
        Row(
            "Who holds what",
            [
                table(
                    "GPU hours and cost by team",
                    "Which team holds GPUs, and does it use them?",
                    fleet(("team",), "`Idle cost` DESC NULLS LAST"),
                    FLEET_COLUMNS,
                    width=12,
                ),
                table(
                    "GPU hours and cost by GPU model",
                    "Which kinds of GPU are short, which lie idle?",
                    fleet(("gpu_model",), "`GPU hours` DESC"),
                    FLEET_COLUMNS,
                    width=12,
                ),
                table(
                    "GPU hours and cost by node",
                    "Which nodes are fragmented or idle?",
                    fleet(("cluster", "node"), "`Idle cost` DESC NULLS LAST"),
                    FLEET_COLUMNS,
                    height=11,
                ),
            ],
        ),
    ],
    incident_annotations(("team", "provider", "model")),
)
