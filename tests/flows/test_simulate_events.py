"""Each kind of planned event changes what it is meant to change, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest

from flows.simulate import DEFAULT_START, Minute, Planned, simulate
from schemas.request_event import RequestEvent

MINUTES, RATE, SEED = 12, 40.0, 5
BEGIN, END = DEFAULT_START + timedelta(minutes=3), DEFAULT_START + timedelta(minutes=11)
Row = dict[str, Any]


@dataclass
class Run:
    minutes: list[Minute]
    requests: list[Row]
    lines: dict[str, bytes]
    gpus: list[Row]


def run(planned: Planned | None) -> Run:
    minutes = list(
        simulate(minutes=MINUTES, seed=SEED, rate=RATE, start=DEFAULT_START, incidents=[planned] if planned else None)
    )
    requests: list[Row] = []
    lines: dict[str, bytes] = {}
    for minute in minutes:
        for line, at_ns in zip(minute.requests, minute.request_at_ns.tolist(), strict=True):
            try:
                row = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            row["at_ns"] = at_ns
            requests.append(row)
            lines[row["event_id"]] = line
    gpus = [msgspec.json.decode(line) for minute in minutes for line in minute.gpus]
    return Run(minutes, requests, lines, gpus)


@cache
def calm() -> Run:
    return run(None)


def plan(kind: str, dims: dict[str, str], magnitude: float, **more: Any) -> Planned:
    return Planned(kind=kind, dims=dims, start=BEGIN, end=END, magnitude=magnitude, **more)


def within(row: Row, dims: dict[str, str], begin: datetime = BEGIN) -> bool:
    inside = begin.timestamp() <= row["at_ns"] / 1e9 < END.timestamp()
    return inside and all(row.get(k) == v for k, v in dims.items() if k != "model" or "provider" in dims)


def requests_of(rows: list[Row]) -> float:
    return float(len(rows))


def users_of(rows: list[Row]) -> float:
    return float(len({r["user_id"] for r in rows}))


def mean(name: str) -> Callable[[list[Row]], float]:
    return lambda rows: float(np.mean([r[name] for r in rows if r["status"] == 200 and name in r]))


def median(name: str) -> Callable[[list[Row]], float]:
    return lambda rows: float(np.median([r[name] for r in rows if r["status"] == 200 and name in r]))


def failed(rows: list[Row]) -> float:
    return sum(r["status"] != 200 for r in rows) / len(rows)


def cache_rate(rows: list[Row]) -> float:
    ok = [r for r in rows if r["status"] == 200]
    return float(sum(r["cache_read_tokens"] for r in ok) / sum(r["input_tokens"] for r in ok))


COPILOT = {"team": "coding", "product": "copilot"}
CHAT = {"team": "platform", "product": "internal-chat"}
LLAMA = {"provider": "vllm", "model": "llama-3.3-70b-instruct"}
HAIKU = {"provider": "anthropic", "model": "claude-haiku-4-5"}

RATIOS: list[tuple[Planned, Callable[[list[Row]], float], float, float]] = [
    (plan("cost_spike", COPILOT, 4, how="prompt_bloat"), mean("input_tokens"), 3.9, 4.1),
    (plan("budget_burn", {"team": "platform"}, 2.5), requests_of, 2.1, 2.9),
    (plan("latency_regression", HAIKU, 2), median("ttft_ms"), 1.95, 2.05),
    (plan("latency_regression", HAIKU, 2), median("latency_ms"), 1.95, 2.05),
    (plan("cache_regression", COPILOT, 0.1), cache_rate, 0.05, 0.16),
    (plan("context_growth", COPILOT, 4), mean("input_tokens"), 2.2, 2.8),
    (plan("traffic_drop", {"team": "search", "product": "answers"}, 0), requests_of, 0.0, 0.0),
    (plan("marketing_peak", {"team": "search"}, 2.5, benign=True), requests_of, 2.3, 2.7),
    (plan("engine_saturation", {"model": LLAMA["model"]}, 6), mean("ttft_ms"), 4.0, 6.0),
    (plan("price_change", CHAT, 1.25, benign=True), lambda r: sum(float(x.get("cost_usd", 0)) for x in r), 1.24, 1.26),
]


@pytest.mark.parametrize(("planned", "metric", "low", "high"), RATIOS, ids=lambda p: getattr(p, "kind", ""))
def test_an_event_changes_its_metric_by_its_magnitude(
    planned: Planned, metric: Callable[[list[Row]], float], low: float, high: float
) -> None:
    dims = LLAMA if planned.kind == "engine_saturation" else planned.dims
    before = [r for r in calm().requests if within(r, dims)]
    after = [r for r in run(planned).requests if within(r, dims)]
    assert len(before) > 100
    assert low <= metric(after) / metric(before) <= high


@pytest.mark.parametrize(
    ("dims", "cause", "statuses"),
    [
        (HAIKU, "vendor_capacity", {529}),
        (COPILOT, "timeout", {504}),
        (COPILOT, "auth", {401}),
        (HAIKU, "bad_request", {400}),
    ],
)
def test_an_error_burst_fails_its_share_with_the_status_of_its_cause(
    dims: dict[str, str], cause: str, statuses: set[int]
) -> None:
    rows = [r for r in run(plan("error_burst", dims, 0.5, cause=cause)).requests if within(r, dims)]
    failures = [r for r in rows if r["status"] != 200]
    assert 0.45 < len(failures) / len(rows) < 0.55
    assert sum(r["status"] in statuses for r in failures) > 0.95 * len(failures)


def test_failures_worth_a_retry_are_retried_and_others_are_not() -> None:
    tries = {
        cause: sum(r["attempt"] > 1 for r in run(plan("error_burst", HAIKU, 0.5, cause=cause)).requests)
        for cause in ("vendor_capacity", "auth")
    }
    usual = sum(r["attempt"] > 1 for r in calm().requests)
    assert tries["vendor_capacity"] > usual + 100
    assert abs(tries["auth"] - usual) < 20


def test_quota_runs_out_before_requests_are_refused() -> None:
    rows = [r for r in run(plan("quota_saturation", HAIKU, 0.5)).requests if within(r, HAIKU)]
    refused = [r for r in rows if r["status"] == 429]
    ramp_end = BEGIN.timestamp() + 0.25 * (END - BEGIN).total_seconds()
    late = [r for r in rows if r["at_ns"] / 1e9 > ramp_end]
    usual = sum(r["status"] == 429 for r in calm().requests if within(r, HAIKU))
    assert sum(r["at_ns"] / 1e9 < ramp_end for r in refused) <= usual
    assert 0.4 < sum(r["status"] == 429 for r in late) / len(late) < 0.6
    assert all(r["ratelimit_remaining_requests"] == 0 for r in late)
    assert any(r["ratelimit_remaining_requests"] > 0 for r in rows)


def test_an_agent_loop_is_one_user_of_one_key() -> None:
    dims = {**COPILOT, "api_key_id": "key-coding-copilot-1", "user_id": "copilot-00007"}
    after = [r for r in run(plan("cost_spike", dims, 5, how="agent_loop")).requests if within(r, COPILOT)]
    before = [r for r in calm().requests if within(r, COPILOT)]
    assert 4.3 < len(after) / len(before) < 5.5
    assert sum(r["user_id"] == "copilot-00007" for r in after) > 0.7 * len(after)


def test_a_marketing_peak_brings_users_in_proportion() -> None:
    dims = {"team": "search", "product": "answers"}
    after = [r for r in run(plan("marketing_peak", dims, 2.5, benign=True)).requests if within(r, dims)]
    before = [r for r in calm().requests if within(r, dims)]
    assert 2.0 < users_of(after) / users_of(before) < 3.0


@pytest.mark.parametrize(
    ("kind", "how", "model"),
    [
        ("cost_spike", "model_switch", "claude-opus-4-1"),
        ("unpriced_model", None, "atlas-2-preview"),
        ("model_launch", None, "claude-sonnet-4-6"),
    ],
)
def test_a_model_switch_moves_its_share_of_requests(kind: str, how: str | None, model: str) -> None:
    rows = [r for r in run(plan(kind, COPILOT, 0.7, how=how)).requests if within(r, COPILOT)]
    assert 0.65 < sum(r["model"] == model for r in rows) / len(rows) < 0.75


def test_a_broken_producer_sends_messages_that_do_not_decode() -> None:
    decoder = msgspec.json.Decoder(RequestEvent)
    bad = 0
    keys: set[bytes] = set()
    for minute in run(plan("data_quality", COPILOT, 0.5)).minutes:
        for line, key in zip(minute.requests, minute.request_keys, strict=True):
            try:
                event = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                bad += 1
                keys.add(key)
                continue
            if event.at == "yesterday":
                bad += 1
                keys.add(key)
    share = bad / sum(within(r, COPILOT) for r in calm().requests)
    assert 0.4 < share < 0.6
    assert keys <= {b"key-coding-copilot-1", b"key-coding-copilot-9"}


def test_a_nightly_batch_adds_requests_of_the_batch_tier() -> None:
    dims = {"team": "shop", "product": "advisor"}
    rows = [r for r in run(plan("nightly_batch", dims, 3, benign=True)).requests if within(r, dims)]
    before = sum(within(r, dims) for r in calm().requests)
    extra = sum(r.get("service_tier") == "batch" for r in rows)
    assert extra > before
    assert len(rows) - extra == pytest.approx(before, abs=3)


def test_a_deploy_blip_fails_requests_for_seconds_only() -> None:
    blip = Planned(
        kind="deploy_blip", dims=COPILOT, start=BEGIN, end=BEGIN + timedelta(seconds=20), magnitude=0.9, benign=True
    )
    failures = [r["at_ns"] / 1e9 for r in run(blip).requests if within(r, COPILOT) and r["status"] != 200]
    near = [t for t in failures if t < BEGIN.timestamp() + 30]
    usual = sum(within(r, COPILOT) and r["status"] != 200 for r in calm().requests)
    assert len(near) > 10
    assert len(failures) - len(near) <= usual + 3


def test_a_clock_shift_moves_demand_of_its_teams() -> None:
    dims = {"team": "platform"}
    after = sum(within(r, dims) for r in run(plan("dst_shift", dims, 1, benign=True)).requests)
    before = sum(within(r, dims) for r in calm().requests)
    assert after / before > 1.05  # nine in the morning becomes ten


UNTOUCHED = [
    plan("cost_spike", COPILOT, 4, how="prompt_bloat"),
    plan("cost_spike", {**COPILOT, "user_id": "copilot-00007"}, 4, how="agent_loop"),
    plan("error_burst", COPILOT, 0.5, cause="timeout"),
    plan("traffic_drop", COPILOT, 0),
    plan("marketing_peak", COPILOT, 2, benign=True),
    plan("dst_shift", COPILOT, 1, benign=True),
    plan("data_quality", COPILOT, 0.5),
]


@pytest.mark.parametrize("planned", UNTOUCHED, ids=lambda p: p.kind)
def test_whatever_an_event_does_not_touch_stays_byte_identical(planned: Planned) -> None:
    def others(found: Run) -> dict[str, bytes]:
        return {k: v for k, v in found.lines.items() if b'"product":"copilot"' not in v}

    changed = run(planned)
    assert others(changed) == others(calm())
    assert [m.requests for m in changed.minutes] != [m.requests for m in calm().minutes]
    assert changed.gpus == calm().gpus


def test_events_on_the_same_requests_add_up() -> None:
    both = [
        plan("cost_spike", COPILOT, 1.0, how="model_switch"),
        plan("error_burst", {"team": "coding"}, 0.5, cause="auth"),
    ]
    stream = simulate(minutes=6, seed=SEED, rate=RATE, start=DEFAULT_START, incidents=both)
    rows = [msgspec.json.decode(line) for minute in list(stream)[3:] for line in minute.requests]
    mine = [r for r in rows if r.get("product") == "copilot"]
    assert {r["model"] for r in mine} == {"claude-opus-4-1"}
    assert 0.4 < sum(r["status"] == 401 for r in mine) / len(mine) < 0.6
