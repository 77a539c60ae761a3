"""Queries over GPUs: state, cost, load, faults."""

from __future__ import annotations

from grafana.panels import Column
from grafana.sql import gpu_rows, listed, named, over_time, top
from schemas.gpu_window import STATES

GPU_VARIABLES = ("cluster", "node", "pool", "gpu_model", "gpu", "team", "model")
GPUS = "gpu_windows_final"
ROWS = gpu_rows(GPU_VARIABLES)
SINGLE = gpu_rows(GPU_VARIABLES, ["gpu"])

ALL_MS = " + ".join(f"{state}_ms" for state in STATES)
ALL_USD = " + ".join(f"{state}_usd" for state in STATES)
IDLE_USD = "toFloat64(sum(held_idle_usd + free_usd))"
UTIL = "sum(util_ppm_ms) / nullIf(sum(util_ms), 0) / 1e6"
KV = "sum(kv_cache_ppm) / nullIf(sum(kv_cache_samples), 0) / 1e6"
WINDOWS = "uniqExact(window_start)"
"""Windows in an interval: levels are summed over GPUs per window, and averaged over windows."""

HOURS = 3_600_000


def by_pool(expression: str, name: str, rank: str = f"sum({ALL_MS})") -> str:
    """A value over time by pool."""
    where = gpu_rows(GPU_VARIABLES, ["pool"])
    return over_time(GPUS, where, [(expression, name)], by=top(named("pool"), rank, GPUS, where))


def by_model(values: list[tuple[str, str]], having: str) -> str:
    """Engine values over time by served model; models whose engine reports nothing are left out."""
    where = gpu_rows(GPU_VARIABLES, ["model"])
    return over_time(
        GPUS, where, values, by=top(named("model", gpus=True), f"sum({ALL_MS})", GPUS, where), having=having
    )


def state_lines(suffix: str, expression: str) -> list[tuple[str, str]]:
    """One value per state."""
    return [(expression.format(f"{state}_{suffix}"), state.replace("_", " ")) for state in STATES]


FLEET_VALUES = [
    (f"sum({ALL_MS}) / {HOURS}", "GPU hours"),
    (f"sum(busy_ms) / nullIf(sum({ALL_MS}), 0)", "Busy"),
    (UTIL, "Utilisation"),
    (f"sum(held_idle_ms) / {HOURS}", "Held idle hours"),
    (f"sum(free_ms) / {HOURS}", "Free hours"),
    (f"sum(unhealthy_ms) / {HOURS}", "Unhealthy hours"),
    (f"toFloat64(sum({ALL_USD}))", "Cost"),
    (IDLE_USD, "Idle cost"),
    (f"sum(unpriced_ms) / {HOURS}", "Unpriced hours"),
]
FLEET_COLUMNS = {
    "GPU hours": Column("short"),
    "Busy": Column("percentunit"),
    "Utilisation": Column("percentunit"),
    "Held idle hours": Column("short"),
    "Free hours": Column("short"),
    "Unhealthy hours": Column("short"),
    "Cost": Column("currencyUSD"),
    "Idle cost": Column("currencyUSD"),
    "Unpriced hours": Column("short"),
    "Last": Column("dateTimeAsIso", width=180),
    "Memory": Column("percentunit"),
    "Temperature": Column("celsius"),
    "Node": Column(link="/d/tidegauge-capacity?var-node=${__value.text}&${__url_time_range}"),
}


def fleet(dims: tuple[str, ...], order: str) -> str:
    """GPU hours and cost by some dimensions."""
    keys = [(named(d, gpus=True), d.replace("_", " ").capitalize().replace("Gpu", "GPU")) for d in dims]
    return listed(GPUS, gpu_rows(GPU_VARIABLES, dims), keys, FLEET_VALUES, order)


_FAULTS = SINGLE + "\n    AND (xid_events > 0 OR ecc_events > 0 OR unhealthy_ms > 0)"
FAULTS = listed(
    GPUS,
    _FAULTS,
    [("cluster", "Cluster"), ("node", "Node"), ("gpu", "GPU"), ("mig_id", "MIG")],
    [
        ("arrayStringConcat(arrayMap(x -> toString(x), arraySort(groupUniqArrayArray(xids))), ', ')", "XIDs"),
        ("sum(xid_hardware_events)", "Hardware XIDs"),
        ("sum(ecc_events)", "Uncorrectable errors"),
        (f"sum(unhealthy_ms) / {HOURS}", "Unhealthy hours"),
        ("max(temperature_c_max)", "Temperature"),
        ("max(window_end)", "Last"),
    ],
    "`Last` DESC",
)
