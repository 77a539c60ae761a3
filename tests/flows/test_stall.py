"""A flow that stands still says so: once per stall, with an end, whatever crashes in between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from flows.incidents.policy import DEFAULTS
from flows.incidents.silences import SilenceRule, Silences
from flows.stall import CLOSE_AFTER_S, KIND, OPEN_AFTER_S, StallWatch
from schemas.errors import DeliveryFailed
from schemas.incident import Incident

FULL = "the spool is full"


class Scene:
    """A clock, a stall, and what on-call and the tables were told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = 1_767_268_800.0
        self.reason = ""
        self.told: list[Incident] = []
        self.recorded: list[Incident] = []
        self.refusing = False
        self.start()

    def start(self, silences: Silences | None = None) -> None:
        self.watch = StallWatch(
            lambda: self.reason,
            self.accept,
            self.path,
            process=0,
            policy=DEFAULTS[KIND],
            silences=silences,
            record=self.recorded.extend,
            clock=lambda: self.now_s,
        )

    def accept(self, incidents: Sequence[Incident]) -> None:
        if self.refusing:
            raise DeliveryFailed("the disk is full", retryable=True)
        self.told += [i for i in incidents if i not in self.told]  # as the outbox does

    def lasts(self, seconds: float, reason: str) -> None:
        """So many seconds pass, with a look in each."""
        self.reason = reason
        for _ in range(int(seconds)):
            self.now_s += 1.0
            self.watch.look()

    @property
    def states(self) -> list[tuple[str, int, str]]:
        return [(i.incident_id, i.revision, i.state) for i in self.told]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "stall.json")


def test_a_stall_is_one_critical_incident_with_its_reason_and_an_end(scene: Scene) -> None:
    scene.lasts(3 * OPEN_AFTER_S, FULL)
    (opened,) = scene.told
    assert (opened.kind, opened.severity, opened.state, opened.notify) == (KIND, "critical", "open", True)
    assert FULL in opened.summary
    assert scene.recorded == []
    scene.lasts(2 * CLOSE_AFTER_S, "")
    assert scene.states == [(opened.incident_id, 1, "open"), (opened.incident_id, 2, "resolved")]
    assert scene.recorded == scene.told
    assert not scene.path.exists()


def test_a_short_wait_is_no_stall(scene: Scene) -> None:
    scene.lasts(OPEN_AFTER_S - 1, FULL)
    scene.lasts(2 * CLOSE_AFTER_S, "")
    scene.lasts(OPEN_AFTER_S - 1, FULL)
    assert scene.told == []


def test_room_for_one_batch_now_and_then_is_no_end(scene: Scene) -> None:
    for _ in range(20):
        scene.lasts(5, FULL)
        scene.lasts(CLOSE_AFTER_S - 1, "")
    assert [state for _, _, state in scene.states] == ["open"]


def test_the_next_stall_is_another_incident(scene: Scene) -> None:
    for _ in range(2):
        scene.lasts(2 * OPEN_AFTER_S, FULL)
        scene.lasts(2 * CLOSE_AFTER_S, "")
    assert [state for _, _, state in scene.states] == ["open", "resolved"] * 2
    assert len({i for i, _, _ in scene.states}) == 2


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_restart_goes_on_with_the_incident_that_was_told(scene: Scene, goes_on: bool) -> None:
    scene.lasts(2 * OPEN_AFTER_S, FULL)
    scene.now_s += 300
    scene.start()
    scene.lasts(3 * OPEN_AFTER_S if goes_on else 0, FULL)
    scene.lasts(2 * CLOSE_AFTER_S, "")
    (opened, _, _) = scene.states[0]
    assert scene.states == [(opened, 1, "open"), (opened, 2, "resolved")]


def test_what_the_outbox_does_not_take_is_told_later_and_as_the_same(scene: Scene) -> None:
    scene.refusing = True
    scene.lasts(OPEN_AFTER_S, FULL)
    for _ in range(3):
        with pytest.raises(DeliveryFailed):
            scene.lasts(1, FULL)
    scene.start()  # and a crash before it was told
    scene.refusing = False
    scene.lasts(2, FULL)
    scene.lasts(2 * CLOSE_AFTER_S, "")
    assert [(revision, state) for _, revision, state in scene.states] == [(1, "open"), (2, "resolved")]


def test_a_memory_that_cannot_be_read_is_said_and_no_reason_to_stop(scene: Scene, capsys: object) -> None:
    scene.path.write_bytes(b"[{")
    scene.start()
    scene.lasts(2 * OPEN_AFTER_S, FULL)
    assert [state for _, _, state in scene.states] == ["open"]


def test_a_silence_records_and_does_not_wake(scene: Scene) -> None:
    scene.start(Silences([SilenceRule({"kind": KIND})]))
    scene.lasts(2 * OPEN_AFTER_S, FULL)
    assert [i.notify for i in scene.told] == [False]
