from __future__ import annotations

import pickle

import numpy as np
import pytest
from river import anomaly, base, compose, preprocessing, time_series

from detectors.base import Detector
from detectors.river_model import RiverModel


class Holes(base.AnomalyDetector):
    """Answers as River's models do at their worst."""

    def __init__(self) -> None:
        self.seen = 0

    def learn_one(self, x: dict[str, float]) -> None:
        self.seen += 1
        if self.seen % 3 == 0:
            raise ZeroDivisionError

    def score_one(self, x: dict[str, float]) -> float:
        if self.seen % 4 == 1:
            raise IndexError
        return [None, float("nan"), 0.3][self.seen % 3]  # type: ignore[return-value]  # River's None


def feed(detector: Detector, values: np.ndarray) -> list[float]:
    scores = []
    for value in values:
        x = {"cost_pico": float(value), "requests": 10.0, "window_s": 60.0}
        scores.append(detector.score_one(x))
        detector.learn_one(x)
    return scores


MODELS = {
    "name": "anomaly.GaussianScorer",
    "gaussian": anomaly.GaussianScorer(window_size=200),
    "half space trees": compose.Pipeline(
        preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(n_trees=5, window_size=50, seed=3)
    ),
    "unseeded trees": anomaly.HalfSpaceTrees(n_trees=5, window_size=50),
    "predictive": anomaly.PredictiveAnomalyDetection(time_series.HoltWinters(alpha=0.3), horizon=1, n_std=3.0),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_model_is_scored_on_our_scale_and_repeats_itself(name: str) -> None:
    values = np.random.default_rng(1).normal(6e12, 3e11, 220)
    one, two = RiverModel(model=MODELS[name]), RiverModel(model=MODELS[name])
    first, second = feed(one, values), feed(two, values)
    assert first == second
    assert all(0 <= s <= 1 for s in first)
    assert first[:60] == [0.0] * 60
    assert np.mean(np.array(first) >= 0.3) < 0.02


def test_a_spike_outranks_the_past() -> None:
    detector = RiverModel()
    usual = feed(detector, np.random.default_rng(2).normal(6e12, 3e11, 300))
    spike = detector.score_one({"cost_pico": 12e12, "requests": 10.0, "window_s": 60.0})
    assert spike > 0.3
    assert spike > max(usual)


def test_scoring_a_predicting_detector_changes_nothing() -> None:
    detector = RiverModel(model=MODELS["predictive"])
    feed(detector, np.random.default_rng(3).normal(6e12, 3e11, 80))
    before = pickle.dumps(detector.state["models"][0])
    x = {"cost_pico": 60e12, "requests": 10.0, "window_s": 60.0}
    assert detector.score_one(x) == detector.score_one(x)
    assert pickle.dumps(detector.state["models"][0]) == before


def test_rivers_holes_score_zero_and_are_counted() -> None:
    detector = RiverModel(model=Holes(), warm_up_rows=1)
    scores = feed(detector, np.full(40, 1e12))
    assert all(np.isfinite(scores))
    assert detector.state["holes"][0] > 10


def test_a_missing_feature_does_not_reach_the_model() -> None:
    detector = RiverModel()
    feed(detector, np.full(70, 1e12))
    detector.learn_one({"window_s": 60.0})
    assert detector.score_one({"window_s": 60.0}) == 0
    assert detector.state["rows"][0] == 70


def test_kind_feature_and_parameters_come_from_the_settings() -> None:
    detector = RiverModel(
        model="anomaly.HalfSpaceTrees", feature=("latency_ms_p95",), kind="latency_regression", per="",
        parameters=(("n_trees", 4), ("seed", 7)),
    )  # fmt: skip
    assert detector.kind == "latency_regression"
    assert detector.features == ("latency_ms_p95", "requests")
    assert detector.clone().kind == "latency_regression"
    assert RiverModel().kind == "cost_spike"
