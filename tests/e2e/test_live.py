"""`tidegauge run` from a real Kafka into a real ClickHouse, as production runs it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e.company import Company
from tests.e2e.conftest import GROUPINGS, Undisturbed
from tests.e2e.live import Live, read_topic, wait_for
from tests.e2e.oncall import OWN, OnCall

pytestmark = [pytest.mark.server, pytest.mark.slow]

MOMENTS = random.Random(20_260_101)
"""When processes are killed."""


def value(metrics: str, name: str) -> float:
    lines = [x for x in metrics.splitlines() if x.startswith((f"{name} ", f"{name}{{"))]
    assert lines, f"{name} is missing"
    return sum(float(x.rsplit(" ", 1)[1]) for x in lines)


def assert_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    """Equal row by row; the first rows that differ are shown."""
    for table, rows in expected.items():
        other = found[table]
        missing, further = Counter(map(repr, rows)), Counter(map(repr, other))
        only_here, only_there = missing - further, further - missing
        assert not only_here, f"{table}: {len(only_here)} rows are missing, such as {next(iter(only_here))[:600]}"
        assert not only_there, f"{table}: {len(only_there)} rows too many, such as {next(iter(only_there))[:600]}"


def test_every_event_arrives_once_and_windows_add_up(company: Company, undisturbed: Undisturbed) -> None:
    t = undisturbed.tables
    assert len(t["requests"]) == company.requests
    assert len(t["gpu_samples"]) == company.samples
    assert len(t["dead_letters"]) == company.refused
    assert len({row[1] for row in t["requests"]}) == company.requests


def test_windows_hold_what_the_requests_hold(undisturbed: Undisturbed) -> None:
    assert undisturbed.sums["raw"][3] > Decimal(10)
    for grouping in GROUPINGS:
        assert undisturbed.sums[grouping] == undisturbed.sums["raw"], grouping


def test_incidents_reach_webhook_topic_and_database(
    undisturbed: Undisturbed, kafka_broker: str, company: Company
) -> None:
    rows = [(r[0], r[1]) for r in undisturbed.tables["incidents"]]
    assert len(rows) >= 4
    sent = read_topic(kafka_broker, undisturbed.incidents_topic)
    assert Counter((i["incident_id"], i["revision"]) for _, i in sent if i["kind"] != OWN) == Counter(rows)
    notified = {r[0] for r in undisturbed.tables["incidents"] if r[-1]}
    assert {incident_id for incident_id, _ in undisturbed.received} == notified
    assert set(undisturbed.received.values()) == {1}
    letters = read_topic(kafka_broker, undisturbed.dead_topic)
    positions = Counter((x["topic"], x["partition"], x["offset"], x["position"]) for _, x in letters)
    assert len(positions) == company.refused
    assert set(positions.values()) == {1}


def test_metrics_tell_what_happened(company: Company, undisturbed: Undisturbed) -> None:
    m = undisturbed.metrics
    assert value(m, "tidegauge_events_total") == company.requests + company.samples
    assert value(m, "tidegauge_dead_letters_total") == company.refused
    assert value(m, "tidegauge_lag_messages") == 0
    assert value(m, "tidegauge_watermark_seconds") > 2 * company.end_s
    assert 0 < value(m, "tidegauge_watermark_delay_seconds") < 2 * 7_200
    assert value(m, "tidegauge_clickhouse_failures_total") == 0
    assert value(m, 'tidegauge_deliveries_total{result="sent",sink="hook"}') >= sum(undisturbed.received.values())


def test_a_kill_at_any_moment_changes_nothing(
    undisturbed: Undisturbed, live: Callable[..., Live], on_call: OnCall, kafka_broker: str
) -> None:
    it = live("killed")
    kills = 0
    progress = []
    for _ in range(5):
        it.start()
        if kills != 2:  # one of them falls into the start
            wait_for("the first rows", lambda: it.metric("tidegauge_blocks_total") > 0)
        time.sleep(MOMENTS.uniform(0.05, 1.8))
        it.check_alive()
        progress.append(it.metric("tidegauge_events_total"))
        it.kill()
        kills += 1
    assert sum(p > 0 for p in progress) >= 3, progress
    assert not it.query("SELECT 1 FROM request_windows WHERE team = 'closing' LIMIT 1"), "all was over before the kills"
    it.start()
    wait_for("the last window", it.has_closed_everything)
    it.stop()
    assert_same(it.tables(), undisturbed.tables)
    assert set(on_call.received()) == set(undisturbed.received)
    ids: dict[tuple[str, str], set[str]] = {}
    for _, webhook_id, incident in on_call.incidents:
        ids.setdefault((incident["incident_id"], incident["state"]), set()).add(webhook_id)
    assert {len(same) for same in ids.values()} == {1}, "a repeated message keeps its identity"
    assert sum(on_call.received().values()) <= sum(undisturbed.received.values()) + kills
    sent = read_topic(kafka_broker, it.incidents_topic)
    before = read_topic(kafka_broker, undisturbed.incidents_topic)
    names = [{(i["incident_id"], i["revision"]) for _, i in x if i["kind"] != OWN} for x in (sent, before)]
    assert names[0] == names[1]
    letters = read_topic(kafka_broker, it.dead_topic)
    assert len({key for key, _ in letters}) == it.company.refused


def test_sigterm_saves_everything_and_a_later_start_goes_on(
    undisturbed: Undisturbed, live: Callable[..., Live], on_call: OnCall
) -> None:
    it = live("stopped")
    stops = []
    for _ in range(2):
        it.start()
        wait_for("some rows", lambda: it.metric("tidegauge_events_total") > 4_000)
        wait_for("readiness", it.is_ready)
        stops.append(it.stop())
    it.start()
    wait_for("the last window", it.has_closed_everything)
    events = it.metric("tidegauge_events_total")
    assert events < it.company.requests + it.company.samples - 8_000, "it began anew"
    it.stop()
    assert_same(it.tables(), undisturbed.tables)
    assert on_call.received() == undisturbed.received


def test_a_second_start_on_the_same_state_is_refused(live: Callable[..., Live]) -> None:
    it = live("twice")
    it.start()
    wait_for("metrics", lambda: it.get("/healthz")[0] == 200)
    second = subprocess.run(
        [sys.executable, "-m", "flows", "run", "--config", str(it.config)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert second.returncode == 2
    assert "is in use by process" in second.stderr
    it.check_alive()
