"""Detection of one shard: rows in, reports out, whatever the batches and restarts."""

from __future__ import annotations

import numpy as np
import pytest

from flows.assembly import Parts
from flows.detect import RequestDetection
from flows.pricing import PriceBook
from flows.settings import Budget, Detection, Settings, Slo, Windows
from flows.steps import Closed, DetectStep
from flows.windows.fold import RequestFold
from flows.windows.merge import RequestMerge
from schemas.findings import Report
from schemas.request_window import COLUMN, RequestWindows
from schemas.series import Series
from tests.builders import NOON_NS, SECOND_NS, costs_for, request_columns

WINDOW_NS = 10 * SECOND_NS


@pytest.fixture(scope="module")
def closed() -> list[RequestWindows]:
    """Ten minutes of windows with a burst of failures in the eighth."""
    fold = RequestFold(window_ns=WINDOW_NS, grouping_sets=[[], ["team"], ["team", "model"]], shards=1)
    merge = RequestMerge(["t/0"], window_ns=WINDOW_NS, allowed_lateness_ns=0)
    columns = request_columns(6_000, seed=2)
    columns.failed[:] = False
    columns.failed[4_500:5_000] = np.arange(500) % 2 == 0
    columns.cause[:] = np.where(columns.failed, 2, 0)
    for part in fold.split(fold.fold(columns, costs_for(columns)), partition="t/0", watermark_ns=0, rejected={}):
        merge.add(part)
    return merge.flush()


def parts(**changes: object) -> Parts:
    detection = Detection(
        slos=[Slo(name="chat", dims={"team": "*"})], budgets=[Budget(name="all", usd=1.0, dims={"team": "search"})]
    )
    return Parts(Settings(detection=detection, windows=Windows(shards=1), **changes), PriceBook.load(None))  # type: ignore[arg-type]


def text(reports: list[Report]) -> list[str]:
    return [
        f"{r.end_ns} {[s.key() for s in r.series]} {r.usual.tolist()}"
        + "".join(f" {f.detector} {f.score.tolist()} {f.observed.tolist()} {f.detail}" for f in r.findings)
        for r in reports
    ]


def watermark_of(w: RequestWindows) -> int:
    return w.end_ns


def test_batches_and_restarts_change_no_report(closed: list[RequestWindows]) -> None:
    one = parts().detect_requests(None)
    whole = text(one.on_windows("0", closed, closed[-1].end_ns))
    made = parts()
    step = made.detect_requests(None)
    got: list[str] = []
    for w in closed:
        got += text(step.on_windows("0", [w], watermark_of(w)))
        step = made.detect_requests(step.snapshot())
    assert got == whole


def test_a_long_gap_is_judged_in_pieces_and_a_restart_between_them_changes_nothing(
    closed: list[RequestWindows], monkeypatch: pytest.MonkeyPatch
) -> None:
    gap = Closed("0", closed[20].end_ns + 300 * WINDOW_NS, closed[:21], [])
    whole = DetectStep(parts().detect_requests, lambda c: c.requests, None).on_batch([gap])[0]
    monkeypatch.setattr("flows.shard_detection.PIECE", 1_000)
    step: DetectStep[RequestWindows] = DetectStep(parts().detect_requests, lambda c: c.requests, None)
    pieces = [*step.on_batch([gap])[0]]
    assert len(pieces) == 1, "the engine gets a turn after a piece"
    while step.notify_at() is not None:
        step = DetectStep(parts().detect_requests, lambda c: c.requests, step.snapshot())
        more = [*step.on_notify()[0]]
        assert sum(len(r.series) for p in more for r in p.reports) <= 2_000
        pieces += more
    assert len(pieces) > 10
    assert [p.watermark_ns for p in pieces] == sorted(p.watermark_ns for p in pieces)
    assert text([r for p in pieces for r in p.reports]) == text([r for p in whole for r in p.reports])
    assert all(r.end_ns <= p.watermark_ns for p in pieces for r in p.reports)


def test_the_end_of_the_input_leaves_nothing_to_be_judged(
    closed: list[RequestWindows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.shard_detection.PIECE", 100)
    step: DetectStep[RequestWindows] = DetectStep(parts().detect_requests, lambda c: c.requests, None)
    first = [*step.on_batch([Closed("0", closed[-1].end_ns, closed, [])])[0]]
    last = [*step.on_eof()[0]]
    assert step.notify_at() is None
    assert sum(len(p.reports) for p in [*first, *last]) == 70
    assert last[-1].watermark_ns == closed[-1].end_ns


def test_window_detectors_report_every_window_and_interval_detectors_every_minute(closed: list[RequestWindows]) -> None:
    reports = parts().detect_requests(None).on_windows("0", closed, closed[-1].end_ns)
    cadences = [f.cadence for r in reports for f in r.findings[:1]]
    assert cadences.count("window") == 60
    assert cadences.count("interval") == 10


def test_a_burst_scores_high_in_its_series_and_carries_its_causes(closed: list[RequestWindows]) -> None:
    reports = parts().detect_requests(None).on_windows("0", closed, closed[-1].end_ns)
    best = max((float(f.score.max()), r.start_ns) for r in reports for f in r.findings if f.detector == "error_burst")
    assert best[0] > 0.5 or best[0] == 0.0  # ten minutes are the detector's warm-up: no score before, a high one after
    during = [r for r in reports if r.start_ns == NOON_NS + 450 * SECOND_NS and r.end_ns - r.start_ns == WINDOW_NS]
    assert int(during[0].errors_by_cause.sum()) > 0


def test_a_quiet_stretch_is_judged_and_a_long_one_is_skipped(closed: list[RequestWindows]) -> None:
    step = parts().detect_requests(None)
    step.on_windows("0", closed[:6], closed[5].end_ns)
    reports = step.on_windows("0", [], closed[5].end_ns + 10 * WINDOW_NS)
    assert len([r for r in reports if r.end_ns - r.start_ns == WINDOW_NS]) == 10
    many = step.on_windows("0", [], closed[5].end_ns + 5_000 * WINDOW_NS)
    assert len([r for r in many if r.end_ns - r.start_ns == WINDOW_NS]) == 350


def test_objectives_and_budgets_reach_only_their_series(closed: list[RequestWindows]) -> None:
    step = parts().detect_requests(None)
    step.on_windows("0", closed[:6], closed[5].end_ns)
    slot = {s: i for i, s in enumerate(step.slots.series) if s is not None}
    slo = step.detectors["slo_burn/chat"].state["objective"]
    budget = step.detectors["budget_burn/all"].state["usd"]
    search = Series("requests", ("team",), ("search",))
    assert slo[slot[search]] == 0.99
    assert budget[slot[search]] == 1.0
    assert np.isnan(budget[slot[Series("requests", ("team",), ("growth",))]])
    assert np.isnan(slo[slot[Series("requests", (), ())]])


def detection(**changes: int) -> RequestDetection:
    given = {"window_ns": WINDOW_NS, "interval_ns": 6 * WINDOW_NS, "max_series": 1_000, "evict_after_ns": 10**15}
    return RequestDetection(parts()._plans["requests"], **{**given, **changes})


def test_series_beyond_the_limit_are_counted_and_the_busiest_are_watched(closed: list[RequestWindows]) -> None:
    step = detection(max_series=3)
    step.on_windows("0", closed[:6], closed[5].end_ns)
    watched = {s for s in step.slots.series if s is not None}
    assert len(watched) == 3
    assert step.slots.unwatched > 0
    requests = dict(zip(closed[0].series, closed[0].sums[:, COLUMN["requests"]].tolist(), strict=True))
    assert watched == set(sorted(requests, key=lambda s: (-requests[s], s.identity()))[:3])


def test_series_without_requests_are_forgotten(closed: list[RequestWindows]) -> None:
    step = detection(evict_after_ns=30 * SECOND_NS)
    step.on_windows("0", closed[:6], closed[5].end_ns)
    assert step.slots.live.any()
    step.on_windows("0", [], closed[5].end_ns + 60 * WINDOW_NS)
    assert not step.slots.live.any()
    assert step.slots.evicted > 0


def test_unreadable_state_is_a_cold_start(closed: list[RequestWindows]) -> None:
    step = parts().detect_requests(b"nonsense")
    assert step.on_windows("0", closed[:6], closed[5].end_ns)
