"""The checks themselves: detectors that break a rule must fail its check."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from detectors import checks
from detectors.base import BoolArray, Detector, Features, FloatArray, Judgement
from detectors.decay import column


class Constant(Detector):
    """Says 0 to everything: holds every rule but the one that it must find something."""

    kind = "cost_spike"
    stream = "requests"
    cadence = "interval"
    features = ("cost_pico", "requests")
    unit = "USD per hour"
    effect_unit = "USD per hour"
    answer = 0.0

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return {"seen_s": np.zeros(n), "last": np.zeros(n)}

    def _score(self, x: Features) -> FloatArray:
        return np.full(len(self), self.answer)

    def score_many(self, x: Features) -> Judgement:
        n, zero = len(self), np.zeros(len(self))
        return Judgement(self._score(x), zero, zero, np.full(n, np.nan), zero, zero)

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        self.state["seen_s"] = self.state["seen_s"] + column(x, "window_s")


class Raising(Constant):
    """Knows no warm-up."""

    answer = 0.7


class OffTheScale(Constant):
    """Scores above 1."""

    answer = 7.0


class LearnsWhileScoring(Constant):
    """Scoring counts."""

    def _score(self, x: Features) -> FloatArray:
        self.state["last"] = self.state["last"] + 1
        return np.zeros(len(self))


class Forgetful(Constant):
    """Learning does nothing."""

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        return


class Poisoned(Constant):
    """Lets NaN into its state."""

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        self.state["last"] = 0.9 * self.state["last"] + column(x, "cost_pico")
        self.state["seen_s"] = self.state["seen_s"] + 1


class Random(Constant):
    """Draws its score."""

    def _score(self, x: Features) -> FloatArray:
        return np.array([random.random() for _ in range(len(self))])


class Neighbours(Constant):
    """A slot's score depends on the other slots."""

    def _score(self, x: Features) -> FloatArray:
        cost = np.nan_to_num(column(x, "cost_pico"))
        return np.asarray(np.clip((cost - cost.mean()) / (np.abs(cost).max() + 1.0), 0, 1)) if len(cost) else cost


class Nervous(Constant):
    """Alarms far more often than its scores state."""

    def _score(self, x: Features) -> FloatArray:
        return np.where(np.floor(np.nan_to_num(column(x, "requests"))) % 5 == 1, 0.5, 0.0)


class Hoarding(Constant):
    """Keeps too much."""

    def _fresh(self, n: int) -> dict[str, FloatArray]:
        return {"seen_s": np.zeros(n), "last": np.zeros((n, 2_000))}


class Undeclared(Constant):
    """Reads a feature that no window has."""

    features = ("cost_pico", "weather")


class Unclonable(Constant):
    """Does not keep its parameter under its name, so River cannot clone it."""

    def __init__(self, speed: float = 1.0) -> None:
        self.tempo = speed
        super().__init__()


class KeepsTheRow(Constant):
    """Changes the row it learns from."""

    def learn_many(self, x: Features, frozen: BoolArray | None = None) -> None:
        super().learn_many(x)
        x["cost_pico"][:] = 0


class Leaky(Constant):
    """Resizing loses what was known."""

    def resize(self, n: int) -> None:
        self.state = self._fresh(n)


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Constant, checks.beats_chance),
        (Raising, checks.new_series_score_zero),
        (Raising, checks.constant_series_stay_quiet),
        (Raising, checks.empty_series_stay_quiet),
        (OffTheScale, checks.scores_lie_on_the_scale),
        (LearnsWhileScoring, checks.score_is_pure),
        (Forgetful, checks.learn_returns_nothing),
        (KeepsTheRow, checks.learn_returns_nothing),
        (Poisoned, checks.missing_rows_are_survived),
        (Random, checks.equal_input_gives_equal_output),
        (Random, checks.restart_changes_nothing),
        (Neighbours, checks.bank_equals_singles),
        (Leaky, checks.slots_come_and_go),
        (Hoarding, checks.state_is_small),
        (Nervous, checks.false_alarms_keep_the_statement),
        (Undeclared, checks.declares_itself),
        (Unclonable, checks.river_accepts_it),
    ],
    ids=lambda v: v.__name__,
)
def test_a_detector_that_breaks_the_rule_fails_its_check(
    cls: type[Detector], check: Callable[[type[Detector]], None]
) -> None:
    with pytest.raises((AssertionError, AttributeError)):
        check(cls)


@pytest.mark.parametrize("check", [c for c in checks.CHECKS if c is not checks.beats_chance], ids=lambda c: c.__name__)
def test_the_constant_detector_fails_only_where_it_should(check: Callable[[type[Detector]], None]) -> None:
    check(Constant)
