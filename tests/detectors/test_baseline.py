from __future__ import annotations

import numpy as np
import pytest
from river import stats

from detectors.baseline import Baseline
from schemas.findings import BASELINE


def test_the_usual_level_scales_with_the_row() -> None:
    bank = Baseline()
    bank.resize(2)
    assert np.isnan(bank.usual(60.0)).all()
    for _ in range(10):
        bank.learn(np.full((2, len(BASELINE)), 6), 60.0)
    assert bank.usual(60.0) == pytest.approx(6)
    assert bank.usual(10.0) == pytest.approx(1)
    assert bank.usual(np.array([60.0, 600.0]))[1] == pytest.approx(60)


def test_the_bank_computes_rivers_exponential_mean() -> None:
    bank = Baseline(half_life_s=600.0)
    bank.resize(1)
    alpha = 1 - 0.5**0.1
    value, weight = stats.EWMean(alpha), stats.EWMean(alpha)
    value.update(0.0)
    weight.update(0.0)
    for v in np.random.default_rng(1).poisson(40, 50):
        bank.learn(np.full((1, len(BASELINE)), v), 60.0)
        value.update(float(v))
        weight.update(1.0)
    assert bank.usual(60.0)[0, 0] == pytest.approx(value.get() / weight.get(), rel=1e-9)


def test_a_frozen_slot_keeps_its_level_for_six_hours_only() -> None:
    bank = Baseline()
    bank.resize(2)
    for _ in range(60):
        bank.learn(np.full((2, len(BASELINE)), 1.0), 60.0)
    frozen = np.array([True, False])
    for _ in range(350):
        bank.learn(np.full((2, len(BASELINE)), 9.0), 60.0, frozen)
    assert bank.usual(60.0)[0] == pytest.approx(1)
    assert (bank.usual(60.0)[1] > 3).all()
    for _ in range(60):
        bank.learn(np.full((2, len(BASELINE)), 9.0), 60.0, frozen)
    assert (bank.usual(60.0)[0] > 7).all()


def test_slots_come_and_go() -> None:
    bank = Baseline()
    bank.resize(3)
    bank.learn(np.arange(3)[:, None] * np.ones(len(BASELINE)), 60.0)
    bank.resize(4)
    assert bank.usual(60.0)[2] == pytest.approx(2)
    assert np.isnan(bank.usual(60.0)[3]).all()
    bank.forget(np.array([2]))
    assert np.isnan(bank.usual(60.0)[2]).all()
    bank.resize(1)
    assert len(bank) == 1
