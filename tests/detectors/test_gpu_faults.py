"""GPU faults: classes of XIDs, their scores, and quiet afterwards."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from detectors.gpu_fault import APPLICATION_SCORE, GpuFault
from detectors.xid import HARDWARE_CODES, XIDS, classify, describe_xids

HEALTHY: dict[str, float] = {
    "samples": 2, "xid_events": 0, "xid_hardware_events": 0, "ecc_events": 0, "unhealthy_ms": 0, "unhealthy_pico": 0,
}  # fmt: skip
HARDWARE = {"xid_events": 1.0, "xid_hardware_events": 1.0}


def scores(detector: GpuFault, rows: list[dict[str, float]]) -> list[float]:
    out = []
    for row in rows:
        out.append(detector.score_one(HEALTHY | row))
        detector.learn_one(HEALTHY | row)
    return out


def test_hardware_outranks_memory_outranks_application() -> None:
    hardware, memory, application, healthy = (
        GpuFault().score_one(HEALTHY | row) for row in (HARDWARE, {"ecc_events": 3.0}, {"xid_events": 1.0}, {})
    )
    assert hardware > memory > 0.5 > 0.2 > application > healthy == 0


def test_a_fault_scores_at_once_and_falls_quiet_by_itself() -> None:
    found = scores(GpuFault(quiet_s=300.0), [{}, HARDWARE] + [{}] * 40)
    assert found[0] == 0
    assert found[1] >= 0.5
    assert found[1 + 29] >= 0.5, "stands while the last fault is less than quiet_s ago"
    assert max(found[1 + 30 :]) == 0


def test_a_new_fault_starts_the_quiet_time_again() -> None:
    found = scores(GpuFault(quiet_s=100.0), [HARDWARE] + [{}] * 8 + [HARDWARE] + [{}] * 9)
    assert min(found) >= 0.5


def test_application_xids_alone_open_nothing() -> None:
    assert max(scores(GpuFault(), [{"xid_events": 5.0}] * 20)) == APPLICATION_SCORE < 0.5


def test_the_judgement_counts_faults_and_what_the_sick_gpu_costs() -> None:
    row = HEALTHY | HARDWARE | {"ecc_events": 2.0, "unhealthy_ms": 10_000.0, "unhealthy_pico": 10_000 * 1e6}
    judged = GpuFault().score_many({k: np.array([v]) for k, v in (row | {"window_s": 10.0}).items()})
    assert judged.observed[0] == 3
    assert judged.impact_usd_per_hour[0] == pytest.approx(3.6)
    assert judged.detail == ["1 hardware XID, 2 uncorrectable memory errors"]


@pytest.mark.parametrize("code", [48, 63, 64, 74, 79, 92, 94, 95, 119, 120, 140, 144, 145, 149, 150, 154])
def test_codes_of_failing_hardware_are_hardware(code: int) -> None:
    assert classify(code) == "hardware"
    assert code in HARDWARE_CODES


@pytest.mark.parametrize("code", [13, 31, 43, 45, 68, 109, 12_345])
def test_codes_of_applications_and_unknown_codes_are_not_hardware(code: int) -> None:
    assert classify(code) == "application"


def test_a_description_names_each_code_once_hardware_first() -> None:
    text = describe_xids([31, 79, 31, 999])
    assert text.startswith("XID 79: GPU has fallen off the bus")
    assert text.index("XID 79") < text.index("XID 31") < text.index("XID 999: not in the catalog")
    assert text.count("XID 31") == 1


def test_the_table_knows_every_code_of_the_recorded_kernel_log() -> None:
    root = os.environ.get("TIDEGAUGE_DATA")
    folder = Path(root) if root else Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    path = folder / "payloads" / "xid_kernel_log_lines.txt"
    if not path.exists():
        pytest.skip(f"recorded kernel log lines are not at {path}; set TIDEGAUGE_DATA")
    lines = path.read_text(encoding="utf-8").splitlines()
    codes = {int(found[1]): line for line in lines if (found := re.search(r"Xid \([^)]*\): (\d+)", line))}
    assert len(codes) >= 6
    assert set(codes) <= set(XIDS)
    assert XIDS[79].title in codes[79]


def test_the_documented_classes_are_those_of_the_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gpus.md").read_text(encoding="utf-8")
    for kind in ("hardware", "application", "information"):
        (row,) = re.findall(rf"^\| {kind} \| ([^|]*)\|", page, flags=re.MULTILINE)
        documented: set[int] = set()
        for first, last in re.findall(r"\b(\d+)(?:–(\d+))?", row):
            documented |= set(range(int(first), int(last or first) + 1))
        assert documented == {code for code, entry in XIDS.items() if entry.kind == kind}
