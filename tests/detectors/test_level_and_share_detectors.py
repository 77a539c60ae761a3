"""Latency, context, cache, traffic, data quality, unpriced usage, quota: each one's own rules."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Detector
from detectors.cache_regression import CacheRegression
from detectors.check_streams import QuietStream, changed
from detectors.context_growth import ContextGrowth
from detectors.data_quality import DataQuality
from detectors.latency_regression import LatencyRegression
from detectors.quota_saturation import QuotaSaturation
from detectors.tail import OPEN_SCORE
from detectors.traffic_drop import TrafficDrop
from detectors.unpriced_model import UnpricedModel


def taught(detector: Detector, rows: int, n: int = 16, row_s: float = 60.0) -> QuietStream:
    detector.resize(n)
    stream = QuietStream(n, 5, row_s)
    for _ in range(rows):
        detector.learn_many(stream.row())
    return stream


def test_latency_half_as_high_again_is_seen_within_ten_minutes() -> None:
    detector = LatencyRegression()
    stream = taught(detector, 240)
    best = np.zeros(16)
    for _ in range(10):
        x = stream.row()
        for name in ("latency_ms_p95", "ttft_ms_p95"):
            x[name] *= 1.5
        judgement = detector.score_many(x)
        best = np.maximum(best, judgement.score)
        detector.learn_many(x)
    assert np.mean(best >= 0.4) >= 0.7
    assert judgement.detail is not None
    assert set(judgement.detail) <= {"", "95th percentile of latency", "95th percentile of time to first token"}


def test_latency_ten_percent_higher_is_not_reported() -> None:
    detector = LatencyRegression()
    stream = taught(detector, 240)
    for _ in range(20):
        x = stream.row()
        x["latency_ms_p95"] *= 1.1
        assert (detector.score_many(x).score < 0.4).all()
        detector.learn_many(x)


def test_context_that_triples_over_hours_is_seen() -> None:
    detector = ContextGrowth()
    stream = taught(detector, 300)
    best = np.zeros(16)
    for minute in range(240):
        x = stream.row()
        x["input_tokens"] *= 1 + 2 * minute / 240
        best = np.maximum(best, detector.score_many(x).score)
        detector.learn_many(x)
    assert np.mean(best >= 0.5) >= 0.9


def test_one_giant_prompt_is_no_growth() -> None:
    detector = ContextGrowth()
    stream = taught(detector, 200)
    x = stream.row()
    x["input_tokens"] *= 8
    assert (detector.score_many(x).score < 0.3).all()


def test_a_series_without_a_cache_has_no_cache_regression() -> None:
    detector = CacheRegression()
    detector.resize(4)
    stream = QuietStream(4, 5, 60.0)
    for _ in range(100):
        x = stream.row()
        x["cache_read_tokens"] *= 0
        assert (detector.score_many(x).score == 0).all()
        detector.learn_many(x)


def test_a_cache_is_cold_after_a_pause() -> None:
    detector = CacheRegression()
    stream = taught(detector, 120, n=4)
    silent = {name: np.zeros(4) for name in stream.row()} | {"window_s": np.full(4, 60.0)}
    for _ in range(90):
        detector.learn_many(silent)
    cold = changed("cache_regression", stream.row(), 0)
    assert (detector.score_many(cold).score == 0).all()


def test_lost_savings_are_priced_by_the_difference_of_token_prices() -> None:
    detector = CacheRegression()
    stream = taught(detector, 200, n=8)
    for _ in range(6):
        row = stream.row()
        x = changed("cache_regression", row, 0)
        judgement = detector.score_many(x)
        detector.learn_many(x)
    assert (judgement.score > OPEN_SCORE).mean() > 0.7
    # The stream pays 3e6 pico-USD for a fresh and 3e5 for a cached token.
    missed_per_hour = judgement.effect * 60
    assert judgement.impact_usd_per_hour == pytest.approx(missed_per_hour * 2.7e6 / 1e12, rel=0.01)


def test_silence_of_a_busy_series_scores_at_once_and_of_a_rare_one_never() -> None:
    detector = TrafficDrop()
    detector.resize(2)
    rng = np.random.default_rng(1)
    rates = np.array([60.0, 0.5])
    for _ in range(200):
        detector.learn_many({"requests": rng.poisson(rates).astype(float), "window_s": np.full(2, 60.0)})
    score = detector.score_many({"requests": np.zeros(2), "window_s": np.full(2, 60.0)}).score
    assert score[0] > OPEN_SCORE
    assert score[1] == 0


def test_an_evenings_decline_is_no_drop() -> None:
    detector = TrafficDrop()
    detector.resize(20)
    rng = np.random.default_rng(2)
    worst = 0.0
    for minute in range(24 * 60):
        rate = 60 * np.exp(0.9 * np.sin(2 * np.pi * minute / 1440))
        x = {"requests": rng.poisson(rate, 20).astype(float), "window_s": np.full(20, 60.0)}
        if minute > 60:
            worst = max(worst, float(detector.score_many(x).score.max()))
        detector.learn_many(x)
    assert worst < 0.4


def test_only_successful_unpriced_usage_counts() -> None:
    detector = UnpricedModel()
    failed = {"unpriced_requests": 9.0, "unpriced_tokens": 0.0, "requests": 9.0, "window_s": 10.0}
    assert detector.score_one(failed) == 0
    small, large = (detector.score_one({**failed, "unpriced_tokens": t}) for t in (100.0, 1e6))
    assert OPEN_SCORE < small < large <= 1


def test_data_quality_names_what_is_broken() -> None:
    detector = DataQuality()
    stream = taught(detector, 60)
    x = stream.row()
    x["rejected"] = 0.3 * x["requests"]
    judgement = detector.score_many(x)
    assert np.mean(judgement.score > OPEN_SCORE) > 0.7
    assert judgement.detail is not None
    assert set(judgement.detail) <= {"", "Messages are refused: see dead_letters"}


def quota(used: float, requests: float = 50.0, refused: float = 0.0) -> dict[str, float]:
    reports = requests - refused
    return {
        "requests": requests, "errors_vendor_quota": refused, "quota_reports": reports,
        "quota_used_ppm": used * reports * 1e6, "window_s": 10.0,
    }  # fmt: skip


def test_a_full_quota_opens_and_a_half_full_one_is_silent() -> None:
    detector = QuotaSaturation()
    for _ in range(12):
        detector.learn_one(quota(0.5))
    assert detector.score_one(quota(0.5)) == 0
    for _ in range(60):
        detector.learn_one(quota(0.96))
    assert detector.score_one(quota(0.96)) >= OPEN_SCORE


def test_a_rising_quota_is_reported_before_it_is_full() -> None:
    detector, rng = QuotaSaturation(), np.random.default_rng(1)
    seen = None
    for row in range(240):  # from half full, 1.2 % a minute
        used = 0.5 + 0.012 * row / 6 + rng.normal(0, 0.01)
        if detector.score_one(quota(used)) >= OPEN_SCORE:
            seen = used
            break
        detector.learn_one(quota(used))
    assert seen is not None
    assert seen < 0.9


def test_a_quota_that_only_wavers_is_silent() -> None:
    detector, rng = QuotaSaturation(), np.random.default_rng(2)
    for _ in range(400):
        x = quota(float(np.clip(0.75 + rng.normal(0, 0.05), 0, 1)))
        assert detector.score_one(x) < OPEN_SCORE
        detector.learn_one(x)


def test_refusals_open_without_any_report_of_headroom() -> None:
    detector = QuotaSaturation()
    x = quota(0.0) | {"quota_reports": 0.0, "quota_used_ppm": 0.0}
    for _ in range(60):
        detector.learn_one(x)
    judgement = detector.score_many(detector._as_bank({**x, "errors_vendor_quota": 20.0}))
    assert judgement.score[0] > OPEN_SCORE
    assert judgement.detail == ["7% of requests refused"]
