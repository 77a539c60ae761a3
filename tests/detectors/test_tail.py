from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detectors import tail


def test_every_tenth_of_score_is_a_factor_of_ten() -> None:
    assert tail.score_of([0.0, -1.0, -6.0, -10.0, -400.0, np.nan]).tolist() == [0.0, 0.1, 0.6, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (tail.log10_normal(4.2), stats.norm.logsf(4.2)),
        (tail.log10_normal(40.0), stats.norm.logsf(40.0)),
        (tail.log10_student(3.0, 5.0), stats.t.logsf(3.0, 5.0)),
        (tail.log10_binomial(7, 30, 0.01), stats.binom.logsf(6, 30, 0.01)),
        (tail.log10_binomial_low(2, 300, 0.1), stats.binom.logcdf(2, 300, 0.1)),
        (tail.log10_poisson(12, 3.0), stats.poisson.logsf(11, 3.0)),
        (tail.log10_poisson_low(1, 20.0), stats.poisson.logcdf(1, 20.0)),
        (tail.log10_negative_binomial(40, 9.0, 4.0), stats.nbinom.logsf(39, 4.0, 4 / 13)),
        (tail.log10_negative_binomial_low(1, 30.0, 4.0), stats.nbinom.logcdf(1, 4.0, 4 / 34)),
    ],
)
def test_tails_equal_the_reference(ours: np.ndarray, reference: float) -> None:
    assert float(ours) == pytest.approx(reference / np.log(10), rel=1e-9)


def test_tails_go_on_where_probabilities_underflow() -> None:
    # P(X = n) of a binomial has a closed form: n log10 p.
    assert float(tail.log10_binomial(5_000, 5_000, 0.01)) == pytest.approx(-10_000, rel=1e-9)
    assert float(tail.log10_poisson_low(0, 5_000.0)) == pytest.approx(-5_000 / np.log(10), rel=1e-9)
    assert float(tail.log10_negative_binomial_low(0, 1e6, 200.0)) == pytest.approx(
        200 * np.log10(200 / 1_000_200), rel=1e-9
    )
    # A Student tail falls as t^-df: a hundred times further out is 2 df decades further down.
    near, far = tail.log10_student([1e60, 1e62], 5.0)
    assert near - far == pytest.approx(10.0, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    trials=st.integers(1, 100_000),
    share=st.floats(1e-6, 0.999),
    part=st.floats(0, 1),
)
def test_more_hits_are_never_likelier(trials: int, share: float, part: float) -> None:
    hits = np.floor(part * trials)
    here, beyond = tail.log10_binomial([hits, min(hits + 1, trials)], trials, share)
    assert beyond <= here + 1e-9
    assert here <= 0


def test_the_two_formulas_of_a_tail_meet_without_a_step() -> None:
    hits = np.arange(200.0, 400.0)
    assert (np.abs(np.diff(tail.log10_binomial(hits, 2_000, 0.01), n=2)) < 0.05).all()
    assert (np.abs(np.diff(tail.log10_poisson(hits, 20.0), n=2)) < 0.05).all()
    assert (np.abs(np.diff(tail.log10_negative_binomial(10 * hits, 20.0, 15.0), n=2)) < 0.05).all()
