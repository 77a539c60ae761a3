from __future__ import annotations

import numpy as np

from detectors.error_burst import ErrorBurst
from detectors.tail import log10_binomial
from schemas.request_window import ERROR_SUMS


def row(
    requests: object, errors: object, cause: str = "errors_vendor_capacity", window_s: float = 10.0
) -> dict[str, np.ndarray]:
    n, e = np.atleast_1d(np.asarray(requests, float)), np.atleast_1d(np.asarray(errors, float))
    x = {name: np.zeros(len(n)) for name in ERROR_SUMS}
    return x | {"requests": n, "errors": e, cause: e.copy(), "window_s": np.full(len(n), window_s)}


def taught(n: int, rate: float, share: float, rows: int = 400, seed: int = 1) -> tuple[ErrorBurst, np.random.Generator]:
    detector, rng = ErrorBurst(), np.random.default_rng(seed)
    detector.resize(n)
    for _ in range(rows):
        requests = rng.poisson(rate, n)
        detector.learn_many(row(requests, rng.binomial(requests, share)))
    return detector, rng


def test_a_burst_is_seen_within_thirty_seconds() -> None:
    detector, rng = taught(50, rate=30, share=0.01)
    best = np.zeros(50)
    for _ in range(3):
        requests = rng.poisson(30, 50)
        x = row(requests, rng.binomial(requests, 0.25))
        best = np.maximum(best, detector.score_many(x).score)
        detector.learn_many(x)
    assert np.mean(best >= 0.6) >= 0.9


def test_quota_refusals_are_left_to_quota_saturation() -> None:
    detector, _ = taught(1, 30, 0.01)
    assert detector.score_many(row(30, 25, "errors_vendor_quota")).score[0] == 0
    assert detector.score_many(row(30, 25, "errors_bad_request")).score[0] > 0.6


def test_two_failures_are_no_burst() -> None:
    detector, _ = taught(1, 3, 0.0005)
    assert detector.score_many(row(2, 2)).score[0] == 0


def test_a_series_that_always_fails_is_quiet() -> None:
    detector, rng = taught(20, 30, 0.4)
    requests = rng.poisson(30, 20)
    assert (detector.score_many(row(requests, np.round(0.45 * requests))).score < 0.3).all()


def test_detail_names_the_dominating_cause_with_its_count() -> None:
    detector, _ = taught(1, 30, 0.01)
    x = row(30, 20, "errors_timeout")
    x["errors"] += 4
    x["errors_auth"] += 4
    assert detector.score_many(x).detail == ["timeout 20 of 24"]


def test_a_burst_that_is_over_stops_scoring() -> None:
    detector, _rng = taught(1, 60, 0.01)
    for _ in range(30):  # five minutes in which everything fails
        detector.learn_many(row(60, 60))
    for _ in range(24):  # four minutes of recovery
        x = row(60, 0)
        last = detector.score_many(x).score[0]
        detector.learn_many(x)
    assert last < 0.3


def test_without_overdispersion_the_nominal_tail_is_the_binomial() -> None:
    detector, _ = taught(1, 100, 0.02, rows=200)
    x = row(100, 9)
    shares = detector._share.judge(detector.state, np.array([9.0]), np.array([100.0]), np.array([10.0]))
    spread = max(1.0, (detector.state["chi"][0, 0] + 20) / (detector.state["chi_weight"][0, 0] + 20))
    expected = -log10_binomial(9 / spread, 100 / spread, shares.base[0, 0])
    assert shares.nominal[0, 0] == expected
    assert spread < 1.3
    assert detector.score_many(x).expected[0] == shares.base[0, 0]


def test_overdispersed_errors_raise_the_bar() -> None:
    steady, _ = taught(20, 60, 0.02)
    rng, wild = np.random.default_rng(2), ErrorBurst()
    wild.resize(20)
    for _ in range(400):
        requests = rng.poisson(60, 20)
        wild.learn_many(row(requests, rng.binomial(requests, rng.beta(0.4, 19.6, 20))))
    x = row(np.full(20, 60.0), np.full(20, 9.0))
    assert np.median(wild.score_many(x).score) < 0.7 * np.median(steady.score_many(x).score)
