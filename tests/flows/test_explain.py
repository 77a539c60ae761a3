"""Explanations: shares add up, and name who and what moved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.incidents.explain import Member, cause_of, contributors, cost_factors, error_factors
from flows.incidents.plausible import moved, only_mix
from schemas.cause import CAUSES, Cause
from schemas.findings import BASELINE, Findings, Report
from schemas.series import Series

TEAM = Series("requests", ("team",), ("a",))
NO_ERRORS = np.zeros(len(CAUSES), np.int64)


def leaf(model: str) -> Series:
    return Series("requests", ("team", "model"), ("a", model))


def row(requests: int, tokens: int, cached: int, cost: int, errors: int = 0) -> list[int]:
    values = {
        "requests": requests,
        "errors": errors,
        "input_tokens": tokens,
        "cache_read_tokens": min(cached, tokens),
        "cost_pico": cost,
    }
    return [values.get(name, 0) for name in BASELINE]


def member(series: Series, now: list[int], usual: list[int]) -> Member:
    return Member(series, np.array(now, np.int64), np.array(usual, np.float64), NO_ERRORS)


ROWS = st.builds(
    row,
    st.integers(0, 10_000),
    st.integers(0, 10**8),
    st.integers(0, 10**8),
    st.integers(0, 10**15),
    st.integers(0, 1_000),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ROWS, ROWS), min_size=1, max_size=4))
def test_cost_factors_always_add_up_to_the_whole_change(parts: list[tuple[list[int], list[int]]]) -> None:
    everyone = {leaf(str(i)): member(leaf(str(i)), now, usual) for i, (now, usual) in enumerate(parts)}
    total_now = np.sum([m.current for m in everyone.values()], axis=0)
    total_usual = np.sum([m.usual for m in everyone.values()], axis=0)
    everyone[TEAM] = Member(TEAM, total_now, total_usual, NO_ERRORS)
    factors = cost_factors(TEAM, everyone)
    if factors:
        assert sum(f.share for f in factors) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("now", "factor"),
    [
        (row(300, 300_000, 0, 300), "requests"),
        (row(100, 300_000, 0, 300), "tokens_per_request"),
        (row(100, 100_000, 0, 300), "price"),
    ],
)
def test_the_factor_that_moved_carries_the_change(now: list[int], factor: str) -> None:
    usual = row(100, 100_000, 0, 100)
    factors = cost_factors(TEAM, {TEAM: member(TEAM, now, usual)})
    assert factors[0].name == factor
    assert factors[0].share == pytest.approx(1.0, abs=0.01)


def test_a_lost_cache_is_told_as_cache_rate() -> None:
    usual, now = row(100, 100_000, 90_000, 10_000), row(100, 100_000, 0, 100_000)
    factors = cost_factors(TEAM, {TEAM: member(TEAM, now, usual)})
    assert factors[0].name == "cache_rate"


def test_a_move_to_a_dearer_model_is_told_as_mix() -> None:
    cheap, dear = leaf("cheap"), leaf("dear")
    everyone = {
        cheap: member(cheap, row(10, 10_000, 0, 10), row(90, 90_000, 0, 90)),
        dear: member(dear, row(90, 90_000, 0, 9_000), row(10, 10_000, 0, 1_000)),
        TEAM: member(TEAM, row(100, 100_000, 0, 9_010), row(100, 100_000, 0, 1_090)),
    }
    assert cost_factors(TEAM, everyone)[0].name == "mix"


def test_contributors_of_the_most_specific_series_are_those_that_overlap_with_it() -> None:
    key = Series("requests", ("team", "api_key_id"), ("a", "k"))
    everyone = {
        leaf("m"): member(leaf("m"), row(100, 1, 0, 900), row(100, 1, 0, 100)),
        key: member(key, row(100, 1, 0, 900), row(100, 1, 0, 100)),
        TEAM: member(TEAM, row(100, 1, 0, 900), row(100, 1, 0, 100)),
    }
    (who,) = contributors("cost_spike", leaf("m"), everyone)
    assert who.dims == {"team": "a", "api_key_id": "k"}
    assert who.share == 1.0


def test_a_series_without_company_is_its_own_contributor() -> None:
    everyone = {TEAM: member(TEAM, row(100, 1, 0, 900), row(100, 1, 0, 100))}
    assert [c.dims for c in contributors("cost_spike", TEAM, everyone)] == [{"team": "a"}]


def test_error_factors_tell_more_requests_from_more_failures() -> None:
    worse = member(TEAM, row(100, 0, 0, 0, errors=40), row(100, 0, 0, 0, errors=1))
    busier = member(TEAM, row(1_000, 0, 0, 0, errors=10), row(100, 0, 0, 0, errors=1))
    assert error_factors(worse)[0].name == "error_share"
    assert error_factors(busier)[0].name == "requests"
    assert sum(f.share for f in error_factors(worse)) == pytest.approx(1.0)


def test_the_dominating_cause_is_the_verdict() -> None:
    failures = [0] * len(CAUSES)
    failures[CAUSES.index(Cause.TIMEOUT)] = 7
    failures[CAUSES.index(Cause.AUTH)] = 2
    assert cause_of(failures) == (Cause.TIMEOUT, "7 timeout, 2 auth")
    assert cause_of([0] * len(CAUSES)) == (Cause.UNKNOWN, "")


def test_traffic_that_moved_to_a_sibling_is_no_spike() -> None:
    old, new = leaf("old"), leaf("new")
    everyone = {
        old: member(old, row(0, 0, 0, 0), row(100, 0, 0, 1_000)),
        new: member(new, row(100, 0, 0, 1_100), row(0, 0, 0, 0)),
    }
    assert moved("cost_spike", new, everyone)
    everyone[old] = member(old, row(100, 0, 0, 1_000), row(100, 0, 0, 1_000))
    assert not moved("cost_spike", new, everyone)


def report_of(scores: dict[Series, float]) -> Report:
    n = len(scores)
    ones = np.ones(n)
    return Report(
        shard="0",
        start_ns=0,
        end_ns=1,
        series=list(scores),
        age_s=ones,
        current=np.zeros((n, len(BASELINE)), np.int64),
        usual=np.zeros((n, len(BASELINE))),
        errors_by_cause=np.zeros((n, len(CAUSES)), np.int64),
        findings=[
            Findings("latency_regression", "d", "ms", "ms", "interval", np.array(list(scores.values())), *[ones] * 5)
        ],
    )


def test_a_ratio_that_moves_only_by_its_mix_is_not_believed() -> None:
    quiet = report_of({TEAM: 0.9, leaf("x"): 0.0, leaf("y"): 0.1})
    real = report_of({TEAM: 0.9, leaf("x"): 0.6, leaf("y"): 0.0})
    assert only_mix("latency_regression", TEAM, "d", [quiet])
    assert not only_mix("latency_regression", TEAM, "d", [real])
    assert not only_mix("cost_spike", TEAM, "d", [quiet])
