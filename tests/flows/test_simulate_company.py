"""The simulated company: believable distributions, valid events, and the same bytes every time."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from genai_prices import Usage, calc_price

from flows.simulate import (
    DEFAULT_START,
    Company,
    Planned,
    decode_truth,
    encode_truth,
    planned_incidents,
    run_simulate,
    simulate,
)
from flows.simulate.incidents import BENIGN, HOWS
from flows.simulate.models import MODELS, PRICE_PROVIDERS
from flows.simulate.rhythm import level_at, week_of
from schemas.errors import BadSettings
from schemas.request_event import RequestEvent

FORBIDDEN = ("messages", "prompt", "completion", "content", "input", "output")


@cache
def lines() -> tuple[bytes, ...]:
    return tuple(line for minute in simulate(minutes=10, seed=2, rate=60) for line in minute.requests)


@cache
def rows() -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in lines()]


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_simulate(6, 9, 10, tmp_path / name)
    for file in ("requests.jsonl.gz", "gpus.jsonl.gz", "truth.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert gzip.decompress((tmp_path / "a" / "requests.jsonl.gz").read_bytes()).count(b"\n") > 1000


def test_another_seed_gives_another_company() -> None:
    first, second = (next(iter(simulate(minutes=1, seed=s, rate=20))).requests for s in (1, 2))
    assert not set(first) & set(second)


def test_a_longer_simulation_begins_with_the_shorter_one() -> None:
    plan = planned_incidents("default", minutes=30, seed=4)
    short = list(simulate(minutes=6, seed=4, rate=15, incidents=plan))
    long = list(simulate(minutes=9, seed=4, rate=15, incidents=plan))[:6]
    assert [(m.requests, m.request_keys, m.gpus) for m in short] == [(m.requests, m.request_keys, m.gpus) for m in long]
    assert all(np.array_equal(a.request_at_ns, b.request_at_ns) for a, b in zip(short, long, strict=True))


def test_every_event_decodes_and_keeps_cache_semantics() -> None:
    decoder = msgspec.json.Decoder(RequestEvent)
    for line in lines():
        e = decoder.decode(line)
        if e.input_tokens is not None:
            assert (e.cache_read_tokens or 0) + (e.cache_write_tokens or 0) <= e.input_tokens
            assert (e.reasoning_tokens or 0) <= (e.output_tokens or 0)
        if e.ttft_ms is not None and e.latency_ms is not None:
            assert e.ttft_ms <= e.latency_ms + 1
        assert e.cost_usd is None or 0 <= e.cost_usd < 100


def test_events_carry_no_prompt_text() -> None:
    known = set(RequestEvent.__struct_fields__)
    for row in rows():
        assert set(row) <= known
        assert not set(row) & set(FORBIDDEN)


def test_event_ids_are_unique() -> None:
    assert len({r["event_id"] for r in rows()}) == len(rows())


def test_event_times_match_the_events_and_some_come_late() -> None:
    minute = next(iter(simulate(minutes=1, seed=2, rate=200)))
    for line, at_ns in zip(minute.requests, minute.request_at_ns.tolist(), strict=True):
        at = msgspec.json.decode(line)["at"]
        seconds = datetime.fromisoformat(at).timestamp() if isinstance(at, str) else at / (1000 if at > 1e11 else 1)
        assert seconds == pytest.approx(at_ns / 1e9, abs=1e-3)
        assert 0 <= at_ns - minute.start_ns < 60e9
    behind = np.maximum.accumulate(minute.request_at_ns) - minute.request_at_ns
    assert 0.02 < float((behind > 0).mean()) < 0.08
    assert behind.max() < 5e9


def test_the_mean_rate_over_a_week_is_the_one_asked_for() -> None:
    company = Company.default(0)
    for w in company.workloads:
        week = week_of(w.rhythm, w.utc_offset_h)
        assert week.mean() == pytest.approx(1)
    count = sum(
        len(m.requests) for m in simulate(minutes=60, seed=0, rate=20, start=datetime(2026, 6, 2, 14, tzinfo=UTC))
    )
    assert 20 * 3600 < count < 2.5 * 20 * 3600  # a working afternoon


def test_office_tools_rest_at_night_and_at_weekends() -> None:
    week = week_of("office", 0)[None]
    monday = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
    noon, night, saturday = (float(level_at(week, monday + h * 3600)[0]) for h in (11, 3, 5 * 24 + 11))
    assert noon > 8 * night
    assert noon > 3 * saturday


def test_tokens_have_a_heavy_tail() -> None:
    tokens = np.array([r["input_tokens"] for r in rows() if r.get("product") == "copilot" and r["status"] == 200])
    fresh = tokens - 5200
    assert np.quantile(fresh, 0.99) > 8 * np.median(fresh)
    assert 0.8 < np.log(fresh[fresh > 0]).std() < 1.7  # Azure's code trace has 1.35, Mooncake's 1.21


def test_few_users_send_much_of_the_traffic() -> None:
    found = [r["user_id"] for r in rows() if r.get("product") == "assistant"]
    counts = np.sort(np.unique(found, return_counts=True)[1])[::-1]
    assert counts[: len(counts) // 10].sum() > 0.3 * counts.sum()
    assert len(counts) > 100


def test_failures_are_few_and_of_several_causes() -> None:
    failures = [r for r in rows() if r["status"] != 200]
    assert 0.002 < len(failures) / len(rows()) < 0.02
    assert len({(r["status"], r["error_type"]) for r in failures}) >= 6
    assert any(r["attempt"] > 1 for r in rows())


def test_some_producers_leave_fields_out() -> None:
    assert any("user_id" not in r for r in rows())
    assert any("environment" not in r for r in rows())
    assert {type(r["at"]) for r in rows()} == {str, int, float}


@pytest.mark.parametrize("model", [m for m in MODELS if m.provider != "vllm"], ids=lambda m: f"{m.provider}/{m.name}")
def test_every_hosted_model_has_a_price_and_a_newcomer_has_none(model: Any) -> None:
    provider = PRICE_PROVIDERS[model.provider]
    for name in (model.name, model.heavier, model.successor):
        if name:
            price = calc_price(
                Usage(input_tokens=10, output_tokens=10), name, provider_id=provider,
                genai_request_timestamp=DEFAULT_START,
            )  # fmt: skip
            assert price.total_price > 0
    with pytest.raises(LookupError):
        calc_price(Usage(input_tokens=10), model.newcomer, provider_id=provider)


@pytest.mark.parametrize("minutes", [30, 60, 1_440, 20_160])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_plan_fits_any_length(minutes: int, seed: int) -> None:
    plan = planned_incidents("default", minutes=minutes, seed=seed)
    end = DEFAULT_START + timedelta(minutes=minutes)
    assert len(plan) >= 6
    assert len({p.kind for p in plan}) >= 5
    assert any(p.benign for p in plan) or minutes < 1_440
    assert all(DEFAULT_START < p.start < p.end <= end for p in plan)
    assert all(p.benign == (p.kind in BENIGN) for p in plan)
    assert min(p.start for p in plan) <= DEFAULT_START + timedelta(minutes=max(5, min(0.2 * minutes, 130)))


def test_a_long_plan_holds_every_kind() -> None:
    assert {p.kind for p in planned_incidents("default", minutes=20_160, seed=1)} == set(HOWS)


def test_truth_can_be_read_back() -> None:
    plan = planned_incidents("default", minutes=1_440, seed=3)
    again = decode_truth(encode_truth(plan).splitlines())
    assert encode_truth(again) == encode_truth(plan)
    assert len(again) == len(plan)


GOOD = {
    "kind": "error_burst", "dims": {"team": "coding"}, "start": "2026-06-01T09:01:00Z", "end": "2026-06-01T09:02:00Z",
    "magnitude": 0.5, "benign": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "flood"}, "unknown kind"),
        ({"cause": "gremlins"}, "unknown cause"),
        ({"end": "2026-06-01T09:00:00Z"}, "end must come after start"),
        ({"start": "2026-06-01T09:01:00"}, "time zone"),
        ({"magnitude": -1}, "magnitude"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_plan_names_its_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSettings, match=said) as caught:
        decode_truth([msgspec.json.encode(GOOD), msgspec.json.encode({**GOOD, **change})], "plan.jsonl")
    assert "plan.jsonl, line 2" in str(caught.value)


@pytest.mark.parametrize("dims", [{"team": "nobody"}, {"colour": "red"}])
def test_an_incident_that_would_happen_to_nobody_is_refused(dims: dict[str, str]) -> None:
    planned = Planned(
        kind="error_burst", dims=dims, start=DEFAULT_START, end=DEFAULT_START + timedelta(minutes=1), magnitude=0.5
    )
    with pytest.raises(BadSettings, match="incident 1"):
        simulate(minutes=1, seed=1, rate=1, incidents=[planned])
