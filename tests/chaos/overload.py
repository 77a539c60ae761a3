"""More than the flow can take: it falls behind, says so, keeps its memory, and catches up."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.chaos.form import Form, Servers
from tests.chaos.report import Row
from tests.chaos.stage import Stage
from tests.e2e.live import wait_for
from tests.e2e.oncall import OWN

FLOOD_PER_S = 40_000.0
"""More than one worker can do here; it shows what one can do."""
FLOOD_S = 6.0
CALM_PER_S = 500.0
CATCH_UP_S = 1_800.0
WATCHED = ("tidegauge_lag_messages", "tidegauge_watermark_delay_seconds", "tidegauge_series")


def scenario(servers: Servers, form: Form) -> Iterator[Row]:
    """Input at a multiple of what is sustainable, then a million names that nobody knows."""
    yield _flood(servers, form)
    yield _names(servers, form)


def _flood(servers: Servers, form: Form) -> Row:
    # The watch speaks up after minutes by default; an overload of seconds needs a stricter one.
    strict = {"max_delay_s": 60.0 if form.overload_s > 120 else 4.0}
    settings = {"detection": {"parameters": {"gpu_fault": {"quiet_s": 10.0}, "pipeline_health": strict}}}
    with Stage(
        servers.folder / "overload", kafka=servers.kafka, clickhouse=servers.clickhouse, rate_per_s=CALM_PER_S,
        settings=settings,
    ) as stage:  # fmt: skip
        stage.watched = WATCHED
        stage.phase("before", form.before_s)
        healthy_mb = stage.peak_memory_bytes / 1e6
        sustainable_per_s = _capacity(stage)
        stage.traffic.rate_per_s = form.overload_factor * sustainable_per_s
        stage.phase("during", form.overload_s)
        stage.traffic.rate_per_s = CALM_PER_S
        caught_up_s = _catch_up(stage)
        stage.phase("after", max(form.after_s, 25.0))
        stage.finish()
        health = [(i["state"], i["summary"]) for _, _, i in stage.on_call.incidents if i["kind"] == OWN]
        return stage.row(
            f"input at {form.overload_factor:g} times the sustainable rate for {form.overload_s:g} s",
            f"sustainable {sustainable_per_s:,.0f} events/s here; largest lag "
            f"{stage.seen['tidegauge_lag_messages']:,.0f} messages; caught up {caught_up_s:.0f} s later; memory before "
            f"{healthy_mb:.0f} MB; `pipeline_health`: {', '.join(state for state, _ in health) or 'NOT TOLD'}",
        )


def _capacity(stage: Stage) -> float:
    """Events per second of the flow while it has more than enough to do."""
    stage.traffic.rate_per_s = FLOOD_PER_S
    stage.phase("flood", FLOOD_S)
    stage.traffic.rate_per_s = CALM_PER_S
    begun, first = time.monotonic(), stage.live.metric("tidegauge_events_total")
    stage.phase("measure", FLOOD_S / 2)
    rate = (stage.live.metric("tidegauge_events_total") - first) / (time.monotonic() - begun)
    _catch_up(stage)
    return max(rate, CALM_PER_S)


def _catch_up(stage: Stage) -> float:
    begun = time.monotonic()

    def done() -> bool:
        stage.look()
        return stage.live.metric("tidegauge_lag_messages") < 2 * CALM_PER_S

    wait_for("no lag", done, timeout_s=CATCH_UP_S)
    return time.monotonic() - begun


def _names(servers: Servers, form: Form) -> Row:
    """A million values of three dimensions within a minute of event time (the short form: as many as fit)."""
    per_s = 17_000.0 if form.overload_s > 120 else 4_000.0
    lasting_s = 60.0 if form.overload_s > 120 else form.during_s
    with Stage(
        servers.folder / "names", kafka=servers.kafka, clickhouse=servers.clickhouse, rate_per_s=CALM_PER_S
    ) as stage:
        stage.watched = WATCHED
        stage.phase("before", form.before_s)
        healthy_mb = stage.peak_memory_bytes / 1e6
        known = stage.traffic.requests
        stage.traffic.exploding, stage.traffic.rate_per_s = True, per_s
        stage.phase("during", lasting_s)
        stage.traffic.exploding, stage.traffic.rate_per_s = False, CALM_PER_S
        names = 3 * (stage.traffic.requests - known)
        _catch_up(stage)
        stage.phase("after", form.after_s)
        stage.finish()
        ((rows,),) = stage.live.query(
            "SELECT max(n) FROM (SELECT count() AS n FROM request_windows_final GROUP BY window_start)"
        )
        return stage.row(
            f"{names:,} names that nobody knows within {lasting_s:g} s",
            f"most rows of one window {rows:,}; series watched at most {stage.seen['tidegauge_series']:,.0f}; memory "
            f"before {healthy_mb:.0f} MB",
        )
