from __future__ import annotations

import pytest

from detectors.pipeline_health import PipelineHealth

HEALTHY = {
    "delay_s": 10.0,
    "lag_messages": 5.0,
    "spool_share": 0.0,
    "outbox_age_s": 0.0,
    "given_up": 0.0,
    "lost_messages": 0.0,
    "unread_partitions": 0.0,
}


def test_a_flow_that_keeps_up_stays_quiet() -> None:
    assert PipelineHealth().score_one(HEALTHY) < 0.2


def test_being_behind_counts_only_while_messages_wait() -> None:
    late = {**HEALTHY, "delay_s": 3_600.0}
    assert PipelineHealth().score_one(late) >= 0.5
    assert PipelineHealth().score_one({**late, "lag_messages": 0.0}) == 0.0


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("spool_share", 0.5),
        ("outbox_age_s", 600.0),
        ("given_up", 1.0),
        ("lost_messages", 1.0),
        ("unread_partitions", 1.0),
    ],
)
def test_every_pressure_opens_at_its_limit(name: str, limit: float) -> None:
    assert PipelineHealth().score_one({**HEALTHY, name: limit}) == pytest.approx(0.5)
    if name in ("spool_share", "outbox_age_s"):  # of the others one is enough
        assert PipelineHealth().score_one({**HEALTHY, name: limit / 8}) < 0.2


def test_the_detail_names_the_worst() -> None:
    detector = PipelineHealth()
    judged = detector.score_many(detector._as_bank({**HEALTHY, "spool_share": 0.9}))
    assert judged.detail == ["rows wait for ClickHouse."]
