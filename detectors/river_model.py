"""Any River anomaly detector or pipeline, on any feature, on our scale."""

from __future__ import annotations

import copy
import importlib
import math
import random
from typing import Any

import numpy as np
import numpy.typing as npt
from river import base

from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.calibration import Calibration
from detectors.decay import SELF_FREEZE, column, half_life_keep, obey
from detectors.tail import score_of

HOLES = (ZeroDivisionError, IndexError, TypeError, ValueError, OverflowError)
"""What River's models raise on streams that they do not expect: a level of 0 in seasonal Holt-Winters, a forecast
before the first season, the median before the first value."""

MIDDLE = 1 / math.log(10.0) + 1e-9
"""The statistic of a score at its own mean: not above it means not strange."""


class RiverModel(Detector):
    """One River model per slot; its score is calibrated by its own past, so that it means what ours mean.

    Every slot holds a deep copy of the model, so this is meant for some series and models, not for thousands.
    Scores of None or NaN, and the exceptions in `HOLES`, score 0 and are counted in `state["holes"]`.

    Parameters
    ----------
    model
        Anomaly detector, pipeline ending in one, or its dotted name below `river`, such as
        `anomaly.HalfSpaceTrees`. None is `anomaly.GaussianScorer`. A supervised detector (one that predicts its
        target) receives the feature as target.
    feature
        Feature, or features, that the model sees.
    kind
        Kind of incident that it opens.
    per
        Feature to divide by (`window_s` makes a rate), or empty.
    parameters
        Keyword parameters, as pairs, where `model` is a name.
    warm_up_rows
        Rows learned before any score.
    max_freeze_s
        Longest time for which an open incident keeps its rows from being learned.
    seed
        Of every random generator inside the model, also of those that River leaves unseeded.
    """

    kind = "cost_spike"
    stream = "requests"
    cadence = "interval"
    features = ("cost_pico", "requests")
    unit = "model score"
    effect_unit = "model score"

    def __init__(
        self,
        model: base.AnomalyDetector | str | None = None,
        feature: str | tuple[str, ...] = "cost_pico",
        kind: str = "cost_spike",
        per: str = "window_s",
        parameters: tuple[tuple[str, Any], ...] | None = None,
        warm_up_rows: int = 60,
        max_freeze_s: float = 21_600.0,
        seed: int = 1,
    ) -> None:
        self.seed = seed
        self.model = model
        self.feature = feature
        self.kind = kind  # type: ignore[misc]  # an instance may open another kind than the class
        self.per = per
        self.parameters = parameters
        self.warm_up_rows = warm_up_rows
        self.max_freeze_s = max_freeze_s
        self._names = (feature,) if isinstance(feature, str) else tuple(feature)
        wanted = dict.fromkeys((*self._names, *((per,) if per and per != "window_s" else ()), "requests"))
        self.features = tuple(wanted)  # type: ignore[misc]  # what an instance reads is its parameter
        self._tail = Calibration(1)
        super().__init__()

    def _prototype(self) -> Any:
        if self.model is None:
            from river import anomaly  # a second of imports that only this detector needs

            return anomaly.GaussianScorer(grace_period=30)
        if isinstance(self.model, str):
            module, _, name = self.model.rpartition(".")
            return getattr(importlib.import_module(f"river.{module}"), name)(**dict(self.parameters or ()))
        return copy.deepcopy(self.model)

    def _fresh(self, n: int) -> dict[str, npt.NDArray[Any]]:
        models = np.empty(n, dtype=object)
        prototype = self._prototype()
        _seed(prototype, self.seed)
        for slot in range(n):
            models[slot] = copy.deepcopy(prototype)
        state: dict[str, npt.NDArray[Any]] = {"models": models, "holes": np.zeros(n, dtype=np.int64)}
        for name in ("rows", "mean_weight", "mean_sum", "square_sum", "value_sum", "frozen_s", "unbounded"):
            state[name] = np.zeros(n)
        return state | self._tail.fresh(n)

    def _rows(self, x: Features) -> tuple[list[dict[str, float] | None], FloatArray]:
        """One dict per slot, None where a feature was not measured; and the first feature's values."""
        values = np.stack([column(x, name) for name in self._names], axis=1)
        if self.per:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = values / column(x, self.per)[:, None]
        known = [all(map(math.isfinite, row)) for row in values.tolist()]
        rows = [
            dict(zip(self._names, row, strict=True)) if ok else None
            for row, ok in zip(values.tolist(), known, strict=True)
        ]
        return rows, values[:, 0]

    def _raw(self, rows: list[dict[str, float] | None]) -> FloatArray:
        out = np.full(len(rows), np.nan)
        for slot, row in enumerate(rows):
            if row is not None:
                out[slot] = _score(self.state["models"][slot], row, self._names[0])
        return out

    def _statistic(self, raw: FloatArray) -> FloatArray:
        """-log10 of the exponential tail of the score's own deviation, to be calibrated. Shape (n, 1).

        Exponential, because most scores are: -log10 of a probability, or a distance.
        """
        raw = self._spread_out(raw, self.state["unbounded"])
        mean, spread = self._level()
        z = np.where(self.state["mean_weight"] > 1, (raw - mean) / spread, 0.0)
        return np.asarray(np.where(np.isfinite(raw), np.maximum(z + 1.0, 0.0) / math.log(10.0), np.nan)[:, None])

    def _level(self) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the model's score; 0 and 1 where unknown."""
        weight = self.state["mean_weight"]
        safe = np.maximum(weight, 1e-9)
        mean = self.state["mean_sum"] / safe
        spread = np.sqrt(np.maximum(self.state["square_sum"] / safe - mean**2, 1e-12))
        known = weight > 1
        return np.where(known, mean, 0.0), np.where(known, np.maximum(spread, 1e-3 * np.abs(mean) + 1e-9), 1.0)

    def _scores(self, raw: FloatArray) -> FloatArray:
        statistic = self._statistic(raw)
        decades = self._tail.decades(self.state, statistic)[:, 0]
        ready = (self.state["rows"] >= self.warm_up_rows) & (self.state["mean_weight"] >= self.warm_up_rows / 2)
        ready &= statistic[:, 0] > MIDDLE
        return np.where(ready, score_of(-decades), 0.0)

    @staticmethod
    def _spread_out(raw: FloatArray, unbounded: FloatArray) -> FloatArray:
        """Scores that end at 1 crowd there (a probability, a saturated rank); -log10(1 - score) pulls them apart."""
        apart = -np.log10(np.maximum(1.0 - np.clip(raw, 0.0, 1.0), 1e-16))
        return np.where(unbounded > 0, raw, apart)

    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""
        rows, value = self._rows(x)
        raw = self._raw(rows)
        score = self._scores(raw)
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = np.where(self.state["rows"] > 0, self.state["value_sum"] / self.state["mean_weight"], np.nan)
        volume = np.nan_to_num(column(x, "requests"))
        return Judgement(score, value, expected, np.full(len(score), np.nan), np.nan_to_num(raw), volume)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn one row; frozen slots are left out until the freeze runs out."""
        rows, value = self._rows(x)
        raw = self._raw(rows)
        state, window_s = self.state, column(x, "window_s")
        strange = self._scores(raw) >= SELF_FREEZE
        hold, _ = obey(state, strange if frozen is None else strange | frozen, window_s, self.max_freeze_s)
        failed = np.array([row is not None for row in rows], dtype=np.bool_) & ~np.isfinite(raw)
        # Many models score 0 for a while; that is not what they score later. A model that is strange by its own score
        # does not see the row, but the level of the score is learned: otherwise it could never calm down.
        learned = np.isfinite(raw) & ~(hold & ~strange) & (state["rows"] >= self.warm_up_rows // 2)
        learned &= (raw != 0) | (state["mean_weight"] > 0)
        self._tail.learn(
            state, self._statistic(raw), np.ones((len(rows), 1)), (learned & (state["rows"] > 30))[:, None]
        )
        keep = np.where(learned, half_life_keep(window_s, [86_400.0])[:, 0], 1.0)
        # A score outside [0, 1] shows that the model's scale has no end: what was learned on the other one is void.
        turned = np.isfinite(raw) & ((raw > 1.0 + 1e-9) | (raw < -1e-9)) & (state["unbounded"] == 0)
        state["unbounded"] = np.where(turned, 1.0, state["unbounded"])
        keep = np.where(turned, 0.0, keep)
        raw = self._spread_out(raw, state["unbounded"])
        mean, spread = self._level()
        # An incident's scores must not soon look normal: far ones count as three standard deviations.
        raw = np.where(turned | (state["mean_weight"] < 20), raw, np.minimum(raw, mean + 3 * spread))
        for name, add in (
            ("mean_weight", np.ones(len(raw))),
            ("mean_sum", raw),
            ("square_sum", raw**2),
            ("value_sum", value),
        ):
            state[name] = state[name] * keep + np.where(learned, add, 0.0)
        for slot, row in enumerate(rows):
            if row is not None and not hold[slot]:
                failed[slot] |= not _learn(state["models"][slot], row, self._names[0])
                state["rows"][slot] += 1
        state["holes"] = state["holes"] + failed


def _seed(part: Any, seed: int, seen: set[int] | None = None) -> None:
    """Seed every random generator below an estimator."""
    seen = set() if seen is None else seen
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, (random.Random, np.random.RandomState)):
        part.seed(seed)
    elif isinstance(part, dict):
        for value in part.values():
            _seed(value, seed, seen)
    elif isinstance(part, list | tuple):
        for value in part:
            _seed(value, seed, seen)
    elif type(part).__module__.startswith("river.") and hasattr(part, "__dict__"):
        _seed(vars(part), seed, seen)


def _score(model: Any, row: dict[str, float], target: str) -> float:
    """A finite score, or NaN."""
    try:
        if model._supervised:
            # Predicting detectors change their threshold while scoring; scoring must change nothing.
            value = copy.deepcopy(model).score_one({}, float(row[target]))
        else:
            value = model.score_one(dict(row))
    except HOLES:
        return math.nan
    return float(value) if value is not None and math.isfinite(value) else math.nan


def _learn(model: Any, row: dict[str, float], target: str) -> bool:
    try:
        if model._supervised:
            model.learn_one({}, float(row[target]))
        else:
            model.learn_one(dict(row))
    except HOLES:
        return False
    return True
