from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from detectors.calibration import NOMINAL, Calibration
from detectors.tail import log10_normal


def learned(statistic: np.ndarray, **given: object) -> tuple[Calibration, dict[str, np.ndarray]]:
    calibration = Calibration(1, **given)  # type: ignore[arg-type]
    state = calibration.fresh(statistic.shape[1])
    everything = np.ones((statistic.shape[1], 1), dtype=bool)
    for row in statistic:
        calibration.learn(state, row[:, None], np.ones((len(row), 1)), everything)
    return calibration, state


@pytest.mark.parametrize("law", ["normal", "wide normal", "laplace"])
def test_false_alarms_stay_within_a_factor_of_two_of_the_statement(law: str) -> None:
    rng = np.random.default_rng(3)
    z = {"normal": rng.normal, "wide normal": rng.normal, "laplace": rng.laplace}[law](size=(3_000, 400))
    if law == "wide normal":
        z *= 1.7
    calibration, state = learned(-log10_normal(z[:1_500]))
    alarms = [calibration.decades(state, -log10_normal(row)[:, None])[:, 0] for row in z[1_500:]]
    for decades in (2.0, 3.0):
        rate, stated = np.mean(np.array(alarms) >= decades), 10.0**-decades
        assert rate <= 2 * stated
        assert rate >= stated / 4


def test_an_exact_tail_is_left_as_it_is() -> None:
    rng = np.random.default_rng(4)
    calibration, state = learned(-np.log10(rng.uniform(size=(4_000, 50))))
    decades = calibration.decades(state, np.full((50, 1), 5.0))
    assert np.median(decades) == pytest.approx(5.0, abs=0.8)


def test_calibration_never_makes_a_test_sharper_than_its_floor() -> None:
    calibration, state = learned(np.full((500, 1), 0.01))
    for statistic in (1.4, 3.0, 9.0):
        assert calibration.decades(state, np.array([[statistic]]))[0, 0] <= statistic + 1e-9
    assert NOMINAL[0] == pytest.approx(1.301, abs=1e-3)


def test_more_is_never_less_strange() -> None:
    rng = np.random.default_rng(5)
    calibration, state = learned(np.abs(stats.t.rvs(3, size=(800, 1), random_state=rng)))
    decades = calibration.decades(state, np.linspace(0, 50, 400)[:, None])[:, 0]
    assert (np.diff(decades) >= 0).all()


def test_one_enormous_value_does_not_blind() -> None:
    rng = np.random.default_rng(6)
    calm = -np.log10(rng.uniform(size=(1_000, 1)))
    calibration, state = learned(calm)
    before = calibration.decades(state, np.array([[6.0]]))[0, 0]
    calibration.learn(state, np.array([[1e12]]), np.ones((1, 1)), np.ones((1, 1), dtype=bool))
    assert calibration.decades(state, np.array([[6.0]]))[0, 0] > 0.6 * before


def test_masked_and_unmeasured_rows_teach_nothing() -> None:
    calibration, state = learned(np.full((10, 2), 0.4))
    before = {name: values.copy() for name, values in state.items()}
    calibration.learn(state, np.array([[9.0], [np.nan]]), np.ones((2, 1)), np.array([[False], [True]]))
    assert all(np.array_equal(before[name], state[name]) for name in state)
