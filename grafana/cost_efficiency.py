"""Cost efficiency: what could be saved without doing less."""

from __future__ import annotations

from grafana.panels import Column, Dashboard, Row, stat, table, timeseries
from grafana.sql import listed, named, over_time, per_hour, ratio, request_rows, single, top, usd
from grafana.variables import incident_annotations, of_requests

VARIABLES = ("team", "product", "provider", "model", "prompt_version")
TABLE = "request_windows_final"
ROWS = request_rows(VARIABLES)
BY_TEAM = request_rows(VARIABLES, ["team"])
BY_MODEL = request_rows(VARIABLES, ["provider", "model"])
BY_PRODUCT = request_rows(VARIABLES, ["product"])
MODEL = f"concat({named('provider')}, ' / ', {named('model')})"
TOP_MODEL = top(MODEL, "sum(input_tokens)", TABLE, BY_MODEL)
TOP_PRODUCT = top(named("product"), "sum(cost_usd)", TABLE, BY_PRODUCT)

MEAN_INPUT = ratio("input_tokens", "requests")
PER_PRICED = f"{usd('cost_usd')} / nullIf(sum(requests) - sum(unpriced_requests), 0)"
PER_OUTCOME = f"{usd('cost_usd')} / nullIf(sum(outcomes), 0)"
USD, SHARE, COUNT = Column("currencyUSD"), Column("percentunit"), Column("short")

SAVINGS = listed(
    TABLE,
    request_rows(VARIABLES, ["team", "product", "provider", "model"]),
    [(named(d), d.capitalize()) for d in ("team", "product", "provider", "model")],
    [
        (usd("cost_usd"), "Spend"),
        (usd("missed_cache_usd"), "Missed in cache"),
        ("sum(missed_cache_requests)", "Misses"),
        (usd("wasted_usd"), "Wasted"),
        (ratio("cache_read_tokens", "input_tokens"), "Cached input"),
        (MEAN_INPUT, "Input tokens per request"),
        (PER_PRICED, "Per priced request"),
        (PER_OUTCOME, "Per outcome"),
        ("sum(unpriced_requests)", "Unpriced requests"),
    ],
    "ifNull(`Missed in cache`, 0) + ifNull(`Wasted`, 0) DESC",
)
PROMPTS = listed(
    TABLE,
    request_rows(VARIABLES, ["team", "product", "model", "prompt_version"]),
    [(named(d), d.replace("_", " ").capitalize()) for d in ("team", "product", "model", "prompt_version")],
    [
        ("sum(requests)", "Requests"),
        (MEAN_INPUT, "Input tokens per request"),
        (ratio("output_tokens", "requests"), "Output tokens per request"),
        (PER_PRICED, "Per priced request"),
        (ratio("cache_read_tokens", "input_tokens"), "Cached input"),
        (ratio("errors", "requests"), "Failed"),
        (PER_OUTCOME, "Per outcome"),
    ],
    "`Requests` DESC",
)
SHORT_ANSWERS = listed(
    TABLE,
    request_rows(VARIABLES, ["team", "product", "provider", "model"]),
    [(named(d), d.capitalize()) for d in ("team", "product", "provider", "model")],
    [
        ("sum(requests)", "Requests"),
        ("sum(output_tokens) / nullIf(sum(requests) - sum(errors), 0)", "Output tokens per request"),
        (MEAN_INPUT, "Input tokens per request"),
        (PER_PRICED, "Per priced request"),
        (f"{usd('cost_usd')} * 1e6 / nullIf(sum(input_tokens) + sum(output_tokens), 0)", "Per million tokens"),
        (usd("cost_usd"), "Spend"),
    ],
    "`Spend` DESC NULLS LAST",
)
COLUMNS = {
    "Team": Column(link="/d/tidegauge-cost-efficiency?var-team=${__value.text}&${__url_time_range}"),
    "Spend": USD,
    "Missed in cache": USD,
    "Wasted": USD,
    "Cached input": SHARE,
    "Input tokens per request": COUNT,
    "Output tokens per request": COUNT,
    "Per priced request": USD,
    "Per outcome": USD,
    "Per million tokens": USD,
    "Failed": SHARE,
    "Requests": COUNT,
    "Misses": COUNT,
    "Unpriced requests": COUNT,
}

STATS = [
    stat(
        "Missed in the prompt cache",
        "What would repeated prompt prefixes have saved, had they been read from the cache?",
        single(TABLE, ROWS, usd("missed_cache_usd"), "missed"),
        "currencyUSD",
    ),
    stat(
        "Wasted on failures and retries",
        "What did requests cost that failed or were sent again?",
        single(TABLE, ROWS, usd("wasted_usd"), "wasted"),
        "currencyUSD",
    ),
    stat(
        "Wasted share of the spend",
        "Which share of the bill is that?",
        single(TABLE, ROWS, f"{usd('wasted_usd')} / nullIf({usd('cost_usd')}, 0)", "share"),
        "percentunit",
        warn=0.02,
        alarm=0.1,
        decimals=2,
    ),
    stat(
        "Input read from the cache",
        "Which share of input tokens came from a prompt cache? Sum over sum, not a mean of rates.",
        single(TABLE, ROWS, ratio("cache_read_tokens", "input_tokens"), "cached"),
        "percentunit",
        decimals=1,
    ),
    stat(
        "Input tokens per request",
        "How long is the mean request?",
        single(TABLE, ROWS, MEAN_INPUT, "tokens"),
        "short",
        decimals=0,
    ),
    stat(
        "Cost per outcome",
        "What does one reported outcome cost?",
        single(TABLE, ROWS, PER_OUTCOME, "usd"),
        "currencyUSD",
    ),
]

DASHBOARD = Dashboard(
    "cost-efficiency",
    "Tidegauge: cost efficiency",
    "Where is money spent without need: cache misses, failures and retries, growing contexts, oversized models?",
    of_requests(VARIABLES),
    [
        Row("At a glance", STATS),
        Row(
            "Prompt cache",
            [
                timeseries(
                    "Input read from the cache, by model",
                    "Did a cache rate fall? A new prompt version that changes the prefix does that.",
                    over_time(TABLE, BY_MODEL, [(ratio("cache_read_tokens", "input_tokens"), "cached")], by=TOP_MODEL),
                    "percentunit",
                    max_value=1.0,
                ),
                timeseries(
                    "Missed cache savings per hour by team",
                    "Who could save how much by keeping prompt prefixes stable?",
                    over_time(
                        TABLE,
                        BY_TEAM,
                        [(per_hour(usd("missed_cache_usd")), "missed")],
                        by=top(named("team"), "sum(missed_cache_usd)", TABLE, BY_TEAM),
                    ),
                    "currencyUSD",
                    stack=True,
                ),
            ],
        ),
        Row(
            "Waste and growth",
            [
                timeseries(
                    "Wasted spend per hour by team",
                    "Who pays for failures and retries?",
                    over_time(
                        TABLE,
                        BY_TEAM,
                        [(per_hour(usd("wasted_usd")), "wasted")],
                        by=top(named("team"), "sum(wasted_usd)", TABLE, BY_TEAM),
                    ),
                    "currencyUSD",
                    stack=True,
                ),
                timeseries(
                    "Input tokens per request by product",
                    "Do contexts grow?",
                    over_time(TABLE, BY_PRODUCT, [(MEAN_INPUT, "tokens")], by=TOP_PRODUCT),
                    "short",
                ),
                timeseries(
                    "Cost per priced request by product",
                    "Does one request become dearer, whatever the traffic?",
                    over_time(TABLE, BY_PRODUCT, [(PER_PRICED, "usd")], by=TOP_PRODUCT),
                    "currencyUSD",
                ),
                timeseries(
                    "Cost per outcome by product",
                    "Does the result become dearer?",
                    over_time(TABLE, BY_PRODUCT, [(PER_OUTCOME, "usd")], by=TOP_PRODUCT),
                    "currencyUSD",
                ),
            ],
        ),
        Row(
            "Where to begin",
            [
                table(
                    "What could be saved, by team, product and model",
                    "Where is most to be saved?",
                    SAVINGS,
                    COLUMNS,
                    height=11,
                ),
                table(
                    "Prompt versions compared",
                    "Did a new prompt version cost more, miss the cache or fail more?",
                    PROMPTS,
                    COLUMNS,
                    height=10,
                ),
                table(
                    "Dear models and the length of their answers",
                    "Which dear models give short answers, so that a smaller one might do?",
                    SHORT_ANSWERS,
                    COLUMNS,
                    height=10,
                ),
            ],
        ),
    ],
    incident_annotations(("team", "product", "provider", "model")),
    time_from="now-24h",
)
