"""What a detector is: a bank of many series that scores first and learns afterwards.

A detector is written once, vectorised over the series ("slots") of a shard, and is at the same time a River estimator:
`score_one` / `learn_one` run the same code on a bank of one, so both give the same numbers by construction.

A detector imports no Kafka, no clock, no I/O and no Bytewax. Randomness takes a `seed`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from river.base import AnomalyDetector

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Features = Mapping[str, FloatArray]
"""Feature name (with its unit) to values, shape (n,): one value per slot. NaN means "not measured in this row"."""

Cadence = Literal["window", "interval"]
"""`window`: judged at every base window (10 s); `interval`: at every detection interval (60 s), on sums over it."""


@dataclass(slots=True)
class Judgement:
    """What a detector says about one row of every slot. Arrays of shape (n,)."""

    score: FloatArray
    """In [0, 1]; see `detectors.tail.score_of`. 0 while warming up, or where there is nothing to judge."""
    observed: FloatArray
    expected: FloatArray
    """Same unit as `observed`; NaN where unknown."""
    impact_usd_per_hour: FloatArray
    """Money lost or overspent per hour by this change, >= 0; NaN where money is not the measure."""
    effect: FloatArray
    """Size of the change in the detector's own `effect_unit`: failed requests per minute, excess milliseconds,
    waiting requests, ... compared with the configured minimum effect."""
    volume: FloatArray
    """Requests (or samples) behind the judgement, compared with the configured minimum volume."""
    detail: list[str] | None = None
    """For some detectors: one short text per slot, such as the cause verdict or the XID; empty where none."""


class Detector(AnomalyDetector, abc.ABC):  # type: ignore[misc]  # River is untyped
    """Base of all detectors.

    A subclass defines the class attributes, takes plain keyword parameters, and implements `_fresh`, `score_many` and
    `learn_many`. State lives in `self.state`: a dict of arrays whose first axis is the slot.
    """

    kind: ClassVar[str]
    """Kind of incident it can open (`schemas.incident.KINDS`)."""
    stream: ClassVar[Literal["requests", "gpus", "pipeline"]]
    cadence: ClassVar[Cadence]
    features: ClassVar[tuple[str, ...]]
    """Names of the features it reads: `schemas.request_window.SUMS`, `<sketch>_p50|p95|p99`; for GPUs
    `schemas.gpu_window.SUMS` and `<maximum>_max`. Sums are over the row; `window_s` (its length) is always given."""
    unit: ClassVar[str]
    """Unit of `observed` and `expected`."""
    effect_unit: ClassVar[str]

    state: dict[str, npt.NDArray[Any]]

    def __init__(self) -> None:
        self._judged: tuple[Features, Judgement] | None = None
        self.state = self._fresh(1)

    @abc.abstractmethod
    def _fresh(self, n: int) -> dict[str, npt.NDArray[Any]]:
        """State of n series that nothing is known about."""

    @abc.abstractmethod
    def score_many(self, x: Features) -> Judgement:
        """Judge one row of every slot. Changes nothing."""

    @abc.abstractmethod
    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        """Learn from one row of every slot.

        `frozen` slots have an open incident and should not learn its level as normal (the detector caps how long it
        obeys, so that a lasting level shift is accepted in the end).
        """

    def judge(self, x: Features) -> Judgement:
        """`score_many`, remembered until the same row is learned, so that learning need not score again."""
        judgement = self.score_many(x)
        self._judged = (x, judgement)
        return judgement

    def judged(self, x: Features) -> Judgement:
        """Judgement of a row that is about to be learned."""
        known, self._judged = self._judged, None
        return known[1] if known is not None and known[0] is x else self.score_many(x)

    # ------------------------------------------------------------------ the bank
    def __len__(self) -> int:
        """Number of slots."""
        return len(next(iter(self.state.values())))

    def resize(self, n: int) -> None:
        """Hold n slots: new ones know nothing; surplus ones are dropped."""
        fresh = self._fresh(n)
        keep = min(n, len(self))
        for name, values in fresh.items():
            values[:keep] = self.state[name][:keep]
        self.state = fresh

    def forget(self, slots: npt.NDArray[np.integer]) -> None:
        """Reset slots, whose series were evicted."""
        if len(slots):
            fresh = self._fresh(len(slots))
            for name, values in self.state.items():
                values[slots] = fresh[name]

    def take(self, slots: npt.NDArray[np.integer]) -> None:
        """Hold only these slots, in this order."""
        self.state = {name: values[slots] for name, values in self.state.items()}

    # ------------------------------------------------------------------ the River estimator
    def score_one(self, x: Mapping[str, float]) -> float:
        """Score of one row of a single series; missing features count as not measured."""
        return float(self.score_many(self._as_bank(x)).score[0])

    def learn_one(self, x: Mapping[str, float]) -> None:
        """Learn one row of a single series."""
        self.learn_many(self._as_bank(x))

    def _as_bank(self, x: Mapping[str, float]) -> dict[str, FloatArray]:
        row = {name: np.array([float(x.get(name, np.nan))]) for name in self.features}
        row["window_s"] = np.array([float(x.get("window_s", 60.0 if self.cadence == "interval" else 10.0))])
        return row
