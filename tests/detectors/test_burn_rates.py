from __future__ import annotations

import numpy as np
import pytest

from detectors.budget_burn import BudgetBurn
from detectors.slo_burn import SloBurn
from detectors.tail import OPEN_SCORE
from schemas.request_window import ERROR_SUMS


def requests(n: float, errors: float, cause: str = "errors_timeout") -> dict[str, float]:
    return dict.fromkeys(ERROR_SUMS, 0.0) | {"requests": n, "errors": errors, cause: errors, "window_s": 60.0}


def minutes_to_page(detector: SloBurn, share: float, limit: int) -> int | None:
    for minute in range(limit):
        x = requests(1_000, 1_000 * share)
        if detector.score_one(x) >= OPEN_SCORE:
            return minute
        detector.learn_one(x)
    return None


def healthy(objective: float, hours: int = 12) -> SloBurn:
    detector = SloBurn(objective=objective)
    for _ in range(60 * hours):
        detector.learn_one(requests(1_000, 0))
    return detector


def test_a_burn_of_14_4_pages_within_an_hour_and_less_does_not() -> None:
    assert minutes_to_page(healthy(0.999), 0.030, 90) is not None
    assert minutes_to_page(healthy(0.999), 0.005, 90) is None


def test_a_burn_above_6_pages_within_six_hours() -> None:
    minutes = minutes_to_page(healthy(0.999, 24), 0.009, 60 * 8)
    assert minutes is not None
    assert 120 < minutes <= 60 * 8


def test_a_full_outage_pages_within_minutes() -> None:
    assert minutes_to_page(healthy(0.99), 1.0, 20) is not None


def test_a_loose_objective_can_still_page() -> None:
    # 14.4 times the budget of a 90 % objective would be 144 % failures.
    assert minutes_to_page(healthy(0.9), 0.8, 90) is not None


def test_few_requests_prove_nothing() -> None:
    detector = SloBurn(objective=0.999)
    for _ in range(30):
        detector.learn_one(requests(1, 0))
    for _ in range(2):
        x = requests(1, 1)
        assert detector.score_one(x) == 0
        detector.learn_one(x)


def test_excluded_causes_do_not_burn() -> None:
    detector = healthy(0.99, 1)
    for _ in range(60):
        detector.learn_one(requests(1_000, 900, "errors_bad_request"))
    assert detector.score_one(requests(1_000, 900, "errors_bad_request")) == 0


def test_an_unknown_cause_is_refused() -> None:
    with pytest.raises(ValueError, match="weather"):
        SloBurn(excluded_causes=("weather",))


def test_slots_have_their_own_objective_and_none_is_silent() -> None:
    detector = SloBurn(objective=None)
    detector.resize(3)
    detector.set_objective(np.array([0]), 0.999)
    detector.set_objective(np.array([1]), 0.5)
    x = {name: np.full(3, v) for name, v in requests(1_000, 100).items()}
    for _ in range(60):
        detector.learn_many(x)
    score = detector.score_many(x).score
    assert score[0] > OPEN_SCORE > score[1]
    assert score[2] == 0


def test_the_condition_ends_soon_after_the_failures() -> None:
    detector = healthy(0.999)
    for _ in range(60):
        detector.learn_one(requests(1_000, 500))
    for _ in range(90):
        x = requests(1_000, 0)
        last = detector.score_one(x)
        detector.learn_one(x)
    assert last < OPEN_SCORE


def money(usd_per_hour: float) -> dict[str, float]:
    return {"cost_pico": usd_per_hour / 60 * 1e12, "requests": 100.0, "window_s": 60.0}


def test_money_at_the_allowed_rate_never_opens() -> None:
    detector = BudgetBurn(usd=720.0)  # of 30 days: one US dollar an hour
    for _ in range(60 * 30):
        x = money(0.9)
        assert detector.score_one(x) < OPEN_SCORE
        detector.learn_one(x)


def test_money_that_burns_twenty_times_too_fast_opens_within_two_hours() -> None:
    detector = BudgetBurn(usd=720.0)
    opened = None
    for minute in range(200):
        x = money(20.0)
        if opened is None and detector.score_one(x) >= OPEN_SCORE:
            opened = minute
        detector.learn_one(x)
    assert opened is not None
    assert 30 <= opened <= 120


def test_a_budget_that_is_used_up_opens() -> None:
    detector = BudgetBurn(usd=24.0, period_s=86_400.0)
    detector.learn_one({**money(0.0), "window_s": 3_600.0})
    detector.learn_one({"cost_pico": 30e12, "requests": 5.0, "window_s": 60.0})
    assert detector.score_one(money(0.0)) >= OPEN_SCORE


def test_slots_without_a_budget_are_silent() -> None:
    detector = BudgetBurn()
    detector.resize(2)
    detector.set_budget(np.array([1]), 10.0, 86_400.0)
    x = {name: np.full(2, v) for name, v in money(500.0).items()}
    for _ in range(60):
        detector.learn_many(x)
    judgement = detector.score_many(x)
    assert judgement.score[0] == 0
    assert judgement.score[1] > OPEN_SCORE
    assert judgement.expected[1] == pytest.approx(10 / 24)
    detector.forget(np.array([1]))
    assert detector.score_many(x).score[1] == 0
