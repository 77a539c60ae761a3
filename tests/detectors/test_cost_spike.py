from __future__ import annotations

import numpy as np
import pytest
from river import stats

from detectors.cost_spike import CostSpike
from detectors.shift import PRIOR_ROWS, WINSOR

MINUTE_S = 60.0


def spend(rng: np.random.Generator, n: int, rate: float, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Cost in pico-USD and requests of one minute: a sum of lognormal request costs."""
    requests = rng.poisson(rate, n)
    costs = rng.lognormal(np.log(2e9), sigma, int(requests.sum()))
    owner = np.repeat(np.arange(n), requests)
    return np.bincount(owner, costs, minlength=n), requests.astype(float)


def row(cost: np.ndarray, requests: np.ndarray) -> dict[str, np.ndarray]:
    return {"cost_pico": cost, "requests": requests, "window_s": np.full(len(cost), MINUTE_S)}


def taught(
    n: int, rate: float, minutes: int = 300, sigma: float = 1.0, seed: int = 1
) -> tuple[CostSpike, np.random.Generator, np.ndarray]:
    detector, rng, scores = CostSpike(), np.random.default_rng(seed), []
    detector.resize(n)
    for _ in range(minutes):
        x = row(*spend(rng, n, rate, sigma))
        scores.append(detector.score_many(x).score)
        detector.learn_many(x)
    return detector, rng, np.array(scores)


def test_a_threefold_jump_is_seen_within_three_minutes() -> None:
    detector, rng, _ = taught(60, rate=40)
    best = np.zeros(60)
    for _ in range(3):
        cost, requests = spend(rng, 60, 40)
        x = row(3 * cost, requests)
        best = np.maximum(best, detector.score_many(x).score)
        detector.learn_many(x)
    assert np.mean(best >= 0.4) >= 0.85


def test_heavy_tailed_spend_stays_quiet() -> None:
    _, _, scores = taught(120, rate=40, minutes=500, sigma=1.4, seed=2)
    lasting = (scores[1:] >= 0.4) & (scores[:-1] >= 0.4)
    assert np.mean(scores >= 0.4) <= 1e-3
    assert lasting.sum() <= 3  # of 60 000 rows


def test_falling_spend_scores_zero() -> None:
    detector, rng, _ = taught(8, rate=60, minutes=120)
    for part in (0.5, 0.1, 0.0):
        cost, requests = spend(rng, 8, 60)
        assert (detector.score_many(row(part * cost, part * requests)).score == 0).all()


def test_more_users_are_spend_too() -> None:
    detector, rng, _ = taught(8, rate=100, minutes=200)
    for _ in range(3):
        x = row(*spend(rng, 8, 500))
        judgement = detector.score_many(x)
        detector.learn_many(x)
    assert (judgement.score > 0.4).all()


def test_impact_is_the_excess_in_usd_per_hour() -> None:
    detector = CostSpike()
    for i in range(90):
        detector.learn_one({"cost_pico": 1e12 * (1 + 0.05 * (i % 3)), "requests": 50, "window_s": MINUTE_S})
    x = {name: np.array([v]) for name, v in {"cost_pico": 5e12, "requests": 50.0, "window_s": MINUTE_S}.items()}
    judgement = detector.score_many(x)
    # One US dollar a minute is 60 an hour; now five a minute.
    assert judgement.expected[0] == pytest.approx(63, rel=0.02)
    assert judgement.observed[0] - judgement.expected[0] == pytest.approx(judgement.impact_usd_per_hour[0])
    assert judgement.observed[0] <= 300


def test_a_frozen_series_keeps_its_level_and_gives_in_after_six_hours() -> None:
    detector, rng, _ = taught(2, rate=100, minutes=120)
    frozen = np.array([True, True])
    normal = detector.score_many(row(*spend(rng, 2, 100))).expected
    for minute in range(60 * 9):
        x = row(*spend(rng, 2, 500))
        if minute == 300:
            held = detector.score_many(x)
        detector.learn_many(x, frozen)
    assert held.expected == pytest.approx(normal, rel=0.15)
    assert (held.score > 0.6).all()
    accepted = detector.score_many(row(*spend(rng, 2, 500)))
    assert (accepted.score < 0.3).all()
    assert accepted.expected == pytest.approx(5 * normal, rel=0.3)


def test_the_bank_computes_rivers_statistics() -> None:
    # One horizon of one row: x is the log ratio to a decayed mean. River's EWMean starts from its first value; starting
    # both the values and a row of ones from 0 and dividing removes that bias.
    half_life_s = 1_200.0
    detector = CostSpike(horizons_s=(MINUTE_S,), half_lives_s=(half_life_s,), warm_ups_s=(0.0,), min_ratio=1e9)
    alpha = 1 - 0.5 ** (MINUTE_S / half_life_s)
    alpha_spread = 1 - 0.5 ** (MINUTE_S / 43_200.0)
    level, level_weight = stats.EWMean(alpha), stats.EWMean(alpha)
    mean, mean_weight = stats.EWMean(alpha), stats.EWMean(alpha)
    square = stats.EWMean(alpha_spread)
    for s in (level, level_weight, mean, mean_weight, square):
        s.update(0.0)
    rng = np.random.default_rng(9)
    # Shrinking high scores out of learning is tested elsewhere: min_ratio keeps every score at 0 here.
    for i, cost in enumerate(rng.lognormal(25, 0.4, 80)):
        shifts = detector._shift.judge(detector.state, np.array([[cost]]), np.array([[MINUTE_S]]), np.array([MINUTE_S]))
        if i > 0:
            x = np.log(cost / (level.get() / level_weight.get()))
            assert shifts.x[0, 0] == pytest.approx(x, rel=1e-9)
            weight = mean_weight.get() / alpha
            away = x - mean.get() / alpha / (weight + PRIOR_ROWS / 4)
            assert shifts.z[0, 0] * shifts.spread[0, 0] == pytest.approx(away, rel=1e-9)
            away = float(np.clip(away, -WINSOR * shifts.spread[0, 0], WINSOR * shifts.spread[0, 0]))
            mean.update(shifts.mean[0, 0] + away)
            mean_weight.update(1.0)
            square.update(away**2)
        level.update(cost)
        level_weight.update(1.0)
        detector.learn_one({"cost_pico": cost, "requests": 10, "window_s": MINUTE_S})
    assert detector.state["away_square"][0, 0] == pytest.approx(square.get() / alpha_spread, rel=1e-9)
