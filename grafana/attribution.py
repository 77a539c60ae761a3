"""Visibility and attribution: who used what, what it cost, what it brought."""

from __future__ import annotations

from grafana.panels import Column, Dashboard, Row, stat, table, timeseries
from grafana.sql import listed, named, over_time, per_hour, ratio, request_rows, single, top, usd
from grafana.variables import incident_annotations, of_requests

VARIABLES = ("team", "product", "provider", "model", "prompt_version", "api_key_id")
TABLE = "request_windows_final"
ROWS = request_rows(VARIABLES)

LEAF = ("team", "product", "provider", "model")
TO_TEAM = "/d/tidegauge-attribution?var-team=${__value.text}&${__url_time_range}"
TO_MODEL = "/d/tidegauge-observability?var-model=${__value.text}&${__url_time_range}"

SHARE = f"{usd('cost_usd')} / nullIf(sum({usd('cost_usd')}) OVER (), 0)"
VALUES = [
    (usd("cost_usd"), "Spend"),
    (SHARE, "Share of spend"),
    ("sum(requests)", "Requests"),
    ("sum(input_tokens)", "Input tokens"),
    ("sum(output_tokens)", "Output tokens"),
    (f"{usd('cost_usd')} / nullIf(sum(requests) - sum(unpriced_requests), 0)", "Per priced request"),
    ("sum(unpriced_requests)", "Unpriced requests"),
    ("sum(unpriced_tokens)", "Unpriced tokens"),
]
COLUMNS = {
    "Team": Column(link=TO_TEAM),
    "Model": Column(link=TO_MODEL),
    "Spend": Column("currencyUSD"),
    "Share of spend": Column("percentunit"),
    "Requests": Column("short"),
    "Input tokens": Column("short"),
    "Output tokens": Column("short"),
    "Per priced request": Column("currencyUSD"),
    "Unpriced requests": Column("short"),
    "Unpriced tokens": Column("short"),
}


def spend_by(dim: str, key: str = "") -> str:
    """Spend per hour by a dimension, its largest values by name."""
    where = request_rows(VARIABLES, [dim])
    return over_time(
        TABLE,
        where,
        [(per_hour(usd("cost_usd")), "spend")],
        by=top(key or named(dim), "sum(cost_usd)", TABLE, where),
    )


PROVIDER_MODEL = request_rows(VARIABLES, ["provider", "model"])
BY_MODEL = over_time(
    TABLE,
    PROVIDER_MODEL,
    [(per_hour(usd("cost_usd")), "spend")],
    by=top(f"concat({named('provider')}, ' / ', {named('model')})", "sum(cost_usd)", TABLE, PROVIDER_MODEL),
)

KINDS_OF_COST = over_time(
    TABLE,
    ROWS,
    [
        (per_hour(usd(f"cost_{kind}_usd")), kind.replace("_", " "))
        for kind in ("input", "cache_read", "cache_write", "output", "reasoning")
    ],
)

_WIDER = request_rows(VARIABLES, ["team", "model"], time=False)
CHANGE = f"""SELECT
    {named("team")} AS `Team`,
    {named("model")} AS `Model`,
    toFloat64(sumIf(cost_usd, window_start >= $__fromTime_ms)) AS `Spend`,
    toFloat64(sumIf(cost_usd, window_start < $__fromTime_ms)) AS `Spend before`,
    ifNull(`Spend`, 0) - ifNull(`Spend before`, 0) AS `Change`,
    sumIf(requests, window_start >= $__fromTime_ms) AS `Requests`,
    sumIf(requests, window_start < $__fromTime_ms) AS `Requests before`
FROM {TABLE}
WHERE {_WIDER}
    AND window_start >= $__fromTime_ms - toIntervalSecond(dateDiff('second', $__fromTime_ms, $__toTime_ms))
    AND window_start <= $__toTime_ms
GROUP BY `Team`, `Model`
ORDER BY abs(`Change`) DESC
LIMIT 50"""

BY_LEAF = listed(
    TABLE, request_rows(VARIABLES, LEAF), [(named(d), d.capitalize()) for d in LEAF], VALUES, "`Spend` DESC NULLS LAST"
)
BY_KEY = listed(
    TABLE,
    request_rows(VARIABLES, ["team", "api_key_id"]),
    [(named("team"), "Team"), (named("api_key_id"), "Key")],
    VALUES,
    "`Spend` DESC NULLS LAST",
)
OUTCOME_VALUES = [
    ("sum(outcomes)", "Outcomes"),
    ("toFloat64(sum(outcome_value_usd))", "Value"),
    (usd("cost_usd"), "Spend"),
    (f"{usd('cost_usd')} / nullIf(sum(outcomes), 0)", "Cost per outcome"),
    (f"toFloat64(sum(outcome_value_usd)) / nullIf({usd('cost_usd')}, 0)", "Value per USD"),
]
BY_OUTCOME = listed(
    TABLE,
    request_rows(VARIABLES, ["team", "product"]),
    [(named("team"), "Team"), (named("product"), "Product")],
    OUTCOME_VALUES,
    "`Spend` DESC NULLS LAST",
)
_UNPRICED_ROWS = request_rows(VARIABLES, ["provider", "model"]) + "\n    AND unpriced_requests > 0"
UNPRICED = listed(
    TABLE,
    _UNPRICED_ROWS,
    [(named("provider"), "Provider"), (named("model"), "Model")],
    [("sum(unpriced_requests)", "Unpriced requests"), ("sum(unpriced_tokens)", "Unpriced tokens")],
    "`Unpriced tokens` DESC",
)

STATS = [
    stat(
        "Spend",
        "What did the chosen requests cost, as far as prices are known?",
        single(TABLE, ROWS, usd("cost_usd"), "spend"),
        "currencyUSD",
    ),
    stat("Requests", "How many were there?", single(TABLE, ROWS, "sum(requests)", "requests"), "short"),
    stat(
        "Tokens",
        "How many tokens went in and out?",
        single(TABLE, ROWS, "sum(input_tokens) + sum(output_tokens)", "tokens"),
        "short",
    ),
    stat(
        "Cost per priced request",
        "What does one request cost on average? Requests without a price are left out.",
        single(TABLE, ROWS, f"{usd('cost_usd')} / nullIf(sum(requests) - sum(unpriced_requests), 0)", "usd"),
        "currencyUSD",
    ),
    stat(
        "Requests without a price",
        "Which share has no known price, and is missing from all spend here?",
        single(TABLE, ROWS, ratio("unpriced_requests", "requests"), "unpriced"),
        "percentunit",
        warn=0.0001,
        alarm=0.05,
        decimals=2,
    ),
    stat(
        "Value of outcomes",
        "What did the requests bring, as far as outcomes were reported?",
        single(TABLE, ROWS, "toFloat64(sum(outcome_value_usd))", "value"),
        "currencyUSD",
    ),
]

DASHBOARD = Dashboard(
    "attribution",
    "Tidegauge: attribution",
    "Who used what, what did it cost, and what did it bring?",
    of_requests(VARIABLES),
    [
        Row("At a glance", STATS),
        Row(
            "Where the money goes",
            [
                timeseries(
                    "Spend per hour by team",
                    "Which team spends how much, and when did it change?",
                    spend_by("team"),
                    "currencyUSD",
                    stack=True,
                ),
                timeseries(
                    "Spend per hour by product",
                    "Which product spends how much?",
                    spend_by("product"),
                    "currencyUSD",
                    stack=True,
                ),
                timeseries(
                    "Spend per hour by provider and model",
                    "Which models cost the most?",
                    BY_MODEL,
                    "currencyUSD",
                    stack=True,
                ),
                timeseries(
                    "Spend per hour by kind of token",
                    "Is it input, cache, output or reasoning that costs? A cost given as a total is not split.",
                    KINDS_OF_COST,
                    "currencyUSD",
                    stack=True,
                ),
            ],
        ),
        Row(
            "What changed",
            [
                table(
                    "Change against the time before",
                    "Which team and model changed the bill most, against the equally long time before the range?",
                    CHANGE,
                    {**COLUMNS, "Spend before": Column("currencyUSD"), "Change": Column("currencyUSD")},
                ),
            ],
        ),
        Row(
            "In detail",
            [
                table(
                    "Spend by team, product, provider and model",
                    "What exactly did everybody use? Unpriced requests are counted beside the spend, never as 0 USD.",
                    BY_LEAF,
                    COLUMNS,
                    height=12,
                ),
                table("Spend by API key", "Which key spends the money?", BY_KEY, COLUMNS, width=14),
                table(
                    "Models without a price",
                    "For which models must a price be added (docs/prices.md)?",
                    UNPRICED,
                    COLUMNS,
                    width=10,
                ),
                table(
                    "Outcomes and their value",
                    "What do a product's requests bring for their cost?",
                    BY_OUTCOME,
                    {
                        **COLUMNS,
                        "Outcomes": Column("short"),
                        "Value": Column("currencyUSD"),
                        "Cost per outcome": Column("currencyUSD"),
                        "Value per USD": Column("short"),
                    },
                ),
            ],
        ),
    ],
    incident_annotations(("team", "product", "provider", "model")),
    time_from="now-24h",
)
