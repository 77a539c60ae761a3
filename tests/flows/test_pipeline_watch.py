"""The watch over the flow itself: what it says, when, and that a crash makes it neither lost nor another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.incidents.policy import policies
from flows.pipeline import ROW_NS, PipelineWatch
from flows.runtime import Runtime
from flows.settings import Destination, Settings
from flows.sources.item import Item
from schemas.incident import Incident
from tests.sinks.incidents import incident
from tests.sinks.receiver import Answer, receiver

S = 1_000_000_000
NOON = 1_767_268_800 * S


def watch(saved: bytes | None = None, pressure: dict[str, float] | None = None) -> PipelineWatch:
    return PipelineWatch(policies({}), pressure=lambda: pressure or {}, saved=saved)


def beat(row: int, *, behind_s: float = 0.0, lag: int = 0, idle: bool = False, partition: str = "t/0") -> Item[Any]:
    now = NOON + row * ROW_NS
    return Item(partition, None, int(now - behind_s * S), idle=idle, lag=lag, read_at_ns=now)


def run(it: PipelineWatch, items: list[Item[Any]], *, save: bool = True) -> list[Incident]:
    """Feed items, one epoch each."""
    out = []
    for item in items:
        out += it.on_item(item)
        if save:
            it.snapshot()
    return out


def told(incidents: list[Incident]) -> list[tuple[str, str]]:
    return [(i.incident_id, i.state) for i in incidents]


def test_being_behind_while_messages_wait_is_an_incident_that_ends_with_the_backlog() -> None:
    it = watch()
    run(it, [beat(0)])
    late = run(it, [beat(row, behind_s=900, lag=5_000) for row in range(1, 12)])
    assert [i.state for i in late][:1] == ["open"]
    assert late[0].kind == "pipeline_health"
    assert "wait in Kafka" in late[0].summary + str(late[0].cause)
    over = run(it, [beat(row) for row in range(12, 60)])
    assert over[-1].state == "resolved"
    assert {i.incident_id for i in late + over} == {late[0].incident_id}


def test_old_events_without_a_backlog_are_no_trouble() -> None:
    assert run(watch(), [beat(row, behind_s=7_200, lag=0) for row in range(40)]) == []


def test_an_idle_partition_is_not_behind() -> None:
    it = watch()
    items = [beat(row, behind_s=9_000, idle=True, lag=0) for row in range(40)]
    assert run(it, [x for i in items for x in (i, beat(0, partition="t/1"))]) == []


def test_a_full_spool_is_an_incident_even_when_nothing_waits_in_kafka() -> None:
    late = run(watch(pressure={"spool_share": 0.9}), [beat(row) for row in range(12)])
    assert [i.state for i in late][:1] == ["open"]


def test_a_replay_has_no_clock_and_no_such_incidents() -> None:
    it = watch(pressure={"spool_share": 1.0})
    assert run(it, [Item("f/0", None, NOON + row * ROW_NS, lag=10**6) for row in range(40)]) == []


def test_nothing_leaves_before_it_is_saved() -> None:
    it = watch()
    items = [beat(row, behind_s=900, lag=5_000) for row in range(12)]
    assert run(it, items, save=False) == []
    it.snapshot()
    assert [i.state for i in it.on_item(beat(12, behind_s=900, lag=5_000))][:1] == ["open"]


def test_a_crash_between_judging_and_saving_tells_no_second_incident() -> None:
    items = [beat(row, behind_s=900, lag=5_000) for row in range(12)]
    for crash_after in range(1, 12):
        it = watch()
        before = run(it, items[:crash_after])
        saved = it.snapshot()
        before += it.on_item(items[crash_after])  # handed on, but its epoch is never saved
        # The clock has moved on when the process is back.
        again = run(watch(saved), [beat(row, behind_s=900, lag=5_000) for row in range(40, 60)])
        opened = {i.incident_id for i in before + again if i.state == "open"}
        assert len(opened) == 1, crash_after


def test_what_was_saved_but_not_handed_on_is_told_after_the_restart() -> None:
    it = watch()
    items = [beat(row, behind_s=900, lag=5_000) for row in range(12)]
    assert run(it, items, save=False) == []
    saved = it.snapshot()
    first = watch(saved).on_item(beat(12, behind_s=900, lag=5_000))
    second = watch(saved).on_item(beat(40, behind_s=900, lag=5_000))
    assert told(first) == told(second) != []


def test_state_that_cannot_be_read_is_a_cold_start_said_aloud(capsys: Any) -> None:
    it = watch(saved=watch().snapshot()[:-3])
    assert run(it, [beat(row) for row in range(3)]) == []
    said = capsys.readouterr()
    assert "cold start" in said.out + said.err


def test_a_delivery_given_up_is_trouble_for_ten_minutes_and_an_old_one_is_none() -> None:
    pressure = {"given_up": 3.0}
    it = watch(pressure=pressure)
    assert run(it, [beat(row) for row in range(30)]) == []
    pressure["given_up"] = 4.0
    out = run(it, [beat(row) for row in range(30, 150)])
    assert [state for _, state in told(out)] == ["open", "resolved"]


def loss(row: int, n: int, partition: str = "t/0") -> Item[Any]:
    return replace(beat(row, partition=partition), lost=n)


def test_lost_messages_are_one_incident_that_names_partition_and_number_and_ends_by_itself() -> None:
    it = watch()
    run(it, [beat(0)])
    out = run(it, [loss(1, 300), loss(1, 100), loss(2, 7, "t/3"), *(beat(row) for row in range(3, 150))])
    assert [state for _, state in told(out)] == ["open", "resolved"]
    assert "before they were read" in out[0].summary
    assert "400 of t/0, 7 of t/3" in out[0].summary


def test_a_crash_after_a_loss_tells_it_once() -> None:
    it = watch()
    run(it, [beat(0)])
    saved = it.snapshot()
    run(it, [loss(1, 50)], save=False)  # its epoch is never saved, so the source comes to it again
    out = run(watch(saved), [loss(40, 50), *(beat(row) for row in range(41, 60))])
    assert [state for _, state in told(out)] == ["open"]
    assert "50 of t/0" in out[0].summary


def test_a_receiver_that_gives_up_is_named_to_the_others(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    with receiver(Answer(410, b"gone")) as gone, receiver(Answer(202)) as pager:
        settings = Settings(
            state_dir=str(tmp_path),
            clickhouse=None,
            destinations=[
                Destination(name="channel", type="slack", url=gone.url),
                Destination(name="pager", type="pagerduty", url=pager.url, secret_file=str(key)),
            ],
        )
        with Runtime(settings, notify=True) as runtime:
            outputs = runtime.outputs()
            it = PipelineWatch(policies({}), pressure=outputs.pressure, troubled=outputs.troubled)
            run(it, [beat(0), beat(1)])
            notifier = runtime.notifier
            assert notifier is not None
            notifier.accept([incident(1, severity="error")])
            assert notifier.drain(15)
            assert notifier.status()["channel"]["dead"] == 1
            told_others = run(it, [beat(row) for row in range(2, 10)])
            for hand_over in outputs.incidents:
                hand_over(told_others)
            assert notifier.drain(15)
    health = [json.loads(r.body) for r in pager.requests if b"pipeline_health" in r.body]
    assert len(health) == 1
    assert "a receiver was given up: channel." in health[0]["payload"]["summary"]
