"""Every detector, every check: [CostSpike:score_is_pure]."""

from __future__ import annotations

import pytest

from detectors import DETECTORS
from detectors.base import Detector
from detectors.checks import CHECKS, Check

CASES = [
    pytest.param(cls, check, id=f"{cls.__name__}:{check.__name__}") for cls in DETECTORS.values() for check in CHECKS
]


@pytest.mark.parametrize(("cls", "check"), CASES)
def test_contract(cls: type[Detector], check: Check) -> None:
    check(cls)
