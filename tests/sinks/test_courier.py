from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.incident import Incident
from sinks.courier import Courier
from sinks.outbox import Outbox
from sinks.traits import Traits
from tests.sinks.incidents import incident
from tests.sinks.scripted import Clock, Scripted, later, never, run

Make = Callable[..., tuple[Courier, Scripted]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    it = Outbox(tmp_path / "outbox.db")
    yield it
    it.close()


@pytest.fixture
def make(outbox: Outbox, clock: Clock) -> Make:
    def courier(traits: Traits | None = None, **options: Any) -> tuple[Courier, Scripted]:
        sink = Scripted(traits=traits, clock=clock)
        arguments = {"clock": clock, "jitter": lambda: 0.5, "traits": sink.traits, **options}
        return Courier("ops", sink, outbox, **arguments), sink

    return courier


def accept(outbox: Outbox, clock: Clock, *incidents: Incident) -> None:
    outbox.accept([("ops", i) for i in incidents], clock())


def ids(sink: Scripted) -> list[tuple[int, int]]:
    return [(int(i.rpartition("-")[2], 16), r) for i, r in sink.sent]


def test_nothing_waiting_is_nothing_to_do(make: Make) -> None:
    assert make()[0].step() is None


def test_retries_until_taken_and_then_never_again(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make()
    sink.failures = [later(), later(), later()]
    accept(outbox, clock, incident())
    run(courier, clock, 60)
    run(courier, clock, 86_400)
    assert ids(sink) == [(1, 1)] * 4
    gaps = [b - a for a, b in zip(sink.times, sink.times[1:], strict=False)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= 0.5
    assert courier.counters["sent"] == 1
    assert courier.counters["retried"] == 3
    assert courier.last_error is None


@pytest.mark.parametrize(("asked_s", "least_s", "most_s"), [(120.0, 120, 121), (1e9, 3_600, 3_601), (0.0, 0.5, 2)])
def test_retry_after_is_honoured_within_reason(
    make: Make, outbox: Outbox, clock: Clock, asked_s: float, least_s: float, most_s: float
) -> None:
    courier, sink = make()
    sink.failures = [later(retry_after_s=asked_s)]
    accept(outbox, clock, incident(1), incident(2))
    run(courier, clock, 10_000)
    assert least_s <= sink.times[1] - sink.times[0] <= most_s
    assert sorted(ids(sink)[1:]) == [(1, 1), (2, 1)]


def test_retry_after_is_honoured_across_a_restart(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make()
    sink.failures = [later(retry_after_s=500)]
    accept(outbox, clock, incident(1), incident(2))
    run(courier, clock, 1)
    again, fresh = make()
    run(again, clock, 450)
    assert fresh.sent == []
    run(again, clock, 100)
    assert len(fresh.sent) == 2


@pytest.mark.parametrize("back_s", [30.0, 600.0, 30 * 86_400.0])
def test_clock_set_back_between_two_starts_freezes_nothing(
    make: Make, outbox: Outbox, clock: Clock, back_s: float
) -> None:
    courier, sink = make()
    sink.failures = [later(retry_after_s=10)]
    accept(outbox, clock, incident(1))
    run(courier, clock, 1)
    clock.now -= back_s
    outbox.right_times(clock())
    again, fresh = make()
    run(again, clock, 3_700)
    assert ids(fresh) == [(1, 1)]
    assert outbox.oldest_waiting_at("ops") is None


def test_rate_limit_holds_even_with_a_backlog(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make(Traits(rate_per_s=1.0))
    accept(outbox, clock, *(incident(n) for n in range(30)))
    run(courier, clock, 100)
    assert len(sink.sent) == 30
    assert all(b - a >= 0.999 for a, b in zip(sink.times, sink.times[1:], strict=False))


def test_waiting_revisions_collapse_to_the_newest(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make()
    accept(outbox, clock, *(incident(1, r, "updated") for r in range(1, 9)), incident(2))
    run(courier, clock)
    assert ids(sink) == [(1, 8), (2, 1)]
    assert courier.counters["superseded"] == 7


def test_revision_that_comes_late_is_not_sent_after_a_newer_one(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make()
    accept(outbox, clock, incident(1, 3))
    run(courier, clock)
    accept(outbox, clock, incident(1, 2))
    run(courier, clock)
    assert ids(sink) == [(1, 3)]


def test_record_gets_every_revision_in_batches(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make(Traits(recording=True, batch=3))
    accept(outbox, clock, *(incident(1, r) for r in range(1, 6)))
    sink.failures = [later()]
    run(courier, clock, 10)
    assert [[r for _, r in batch] for batch in sink.batches] == [[1, 2, 3], [1, 2, 3], [4, 5]]


def test_one_bad_row_costs_its_batch_nothing(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make(Traits(recording=True, batch=5))
    accept(outbox, clock, *(incident(n) for n in range(7)))
    sink.poison = {incident(2).incident_id: never("too large")}
    with capture_logs() as logs:
        run(courier, clock, 10)
    assert courier.counters["sent"] == 6
    assert [(d.incident_id, d.error) for d in outbox.dead()] == [(incident(2).incident_id, "too large")]
    assert [log["event"] for log in logs] == ["incident not delivered, given up"]
    assert len(sink.batches[-1]) == 2, "after the culprit is found, batches are whole again"


def test_poisonous_incident_holds_up_no_other(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make()
    accept(outbox, clock, *(incident(n) for n in range(20)))
    sink.poison = {incident(0).incident_id: later("HTTP 500")}
    run(courier, clock, 60)
    assert {n for n, _ in ids(sink)} == set(range(20))
    assert courier.counters["sent"] == 19


def test_gives_up_after_so_many_attempts_and_says_so(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make(max_attempts=3)
    sink.failures = [later("down")] * 9
    accept(outbox, clock, incident())
    with capture_logs() as logs:
        run(courier, clock, 3_600)
    assert len(sink.sent) == 3
    assert courier.counters["dead"] == 1
    assert [d.error for d in outbox.dead()] == ["down"]
    assert any(log["log_level"] == "error" and log["incident_id"] == incident().incident_id for log in logs)


def test_gives_up_after_so_long_but_not_without_an_attempt(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make(give_up_after_s=100.0)
    accept(outbox, clock, incident(1))
    clock.now += 1_000
    run(courier, clock)
    assert ids(sink) == [(1, 1)]
    sink.failures = [later()] * 1_000
    accept(outbox, clock, incident(2))
    run(courier, clock, 1_000)
    assert [d.incident_id for d in outbox.dead()] == [incident(2).incident_id]


def test_attempts_are_remembered_across_restarts(make: Make, outbox: Outbox, clock: Clock) -> None:
    accept(outbox, clock, incident())
    for _ in range(3):
        courier, sink = make(max_attempts=3)
        sink.failures = [later()]
        run(courier, clock, 0)
        clock.now += 600
    assert [d.attempts for d in outbox.dead()] == [3]


def test_tracker_hears_of_a_resolve_if_it_may_know_of_the_opening(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make(Traits(tracks_state=True))
    sink.failures = [later("no answer within 10 s")]
    accept(outbox, clock, incident(1, 1))
    run(courier, clock, 0)
    accept(outbox, clock, incident(1, 2, "resolved"), incident(2, 1), incident(2, 2, "resolved"))
    run(courier, clock, 60)
    assert ids(sink) == [(1, 1), (1, 2)]
    assert courier.counters["unneeded"] == 1


def test_open_incidents_are_refreshed_and_resolved_ones_for_a_while(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make(Traits(tracks_state=True, batch=9, refresh_s=60, refresh_resolved_s=300))
    accept(outbox, clock, incident(1), incident(2))
    run(courier, clock, 179)
    assert ids(sink) == [(1, 1), (2, 1)] * 3
    accept(outbox, clock, incident(1, 2, "resolved"))
    run(courier, clock, 1_000)
    assert ids(sink).count((1, 1)) == 3
    assert ids(sink).count((1, 2)) == 1 + 5
    assert ids(sink).count((2, 1)) >= 16


def test_refresh_goes_on_after_a_restart(make: Make, outbox: Outbox, clock: Clock) -> None:
    traits = Traits(tracks_state=True, refresh_s=60)
    courier, _ = make(traits)
    accept(outbox, clock, incident(1))
    run(courier, clock, 1)
    again, sink = make(traits)
    run(again, clock, 1)
    assert ids(sink) == [(1, 1)]


def test_an_incident_stays_alive_though_an_update_of_it_was_refused_but_not_after_its_end(
    make: Make, outbox: Outbox, clock: Clock
) -> None:
    courier, sink = make(Traits(tracks_state=True, refresh_s=60))
    accept(outbox, clock, incident(1), incident(2))
    run(courier, clock, 10)
    sink.failures = [never(), never()]
    accept(outbox, clock, incident(1, 2, "updated"), incident(2, 2, "resolved"))
    run(courier, clock, 10)
    assert len(outbox.dead()) == 2
    sink.batches.clear()
    run(courier, clock, 125)
    assert ids(sink) == [(1, 1), (1, 1)]


def test_failed_refresh_is_repeated_soon(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make(Traits(tracks_state=True, refresh_s=60))
    accept(outbox, clock, incident(1))
    run(courier, clock, 30)
    sink.failures = [later()]
    run(courier, clock, 40)
    assert len(sink.sent) == 3


def test_defect_of_a_sink_is_retried_and_shows_no_text_of_its_own(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make()
    sink.failures = [RuntimeError("secret inside")]
    accept(outbox, clock, incident())
    with capture_logs() as logs:
        run(courier, clock, 0.1)
    assert "RuntimeError in scripted.py" in str(courier.last_error)
    assert "secret inside" not in str(logs) + str(courier.status(clock()))
    run(courier, clock, 60)
    assert courier.counters["sent"] == 1


def test_errors_of_foreign_sinks_are_redacted(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make()
    sink.failures = [later("POST https://u:pw@hooks.example/services/T/B/x?k=v failed, whsec_c2VjcmV0")]
    accept(outbox, clock, incident())
    with capture_logs() as logs:
        run(courier, clock, 0.1)
    assert courier.last_error == "POST https://hooks.example/*** failed, ***"
    assert "services" not in str(logs)


def test_outage_is_logged_once_with_its_end(make: Make, outbox: Outbox, clock: Clock) -> None:
    courier, sink = make()
    sink.failures = [later()] * 5
    accept(outbox, clock, incident())
    with capture_logs() as logs:
        run(courier, clock, 300)
    assert [log["event"] for log in logs] == ["destination fails", "destination works again"]


def test_unreadable_row_is_given_up_and_never_refreshed(
    make: Make, outbox: Outbox, clock: Clock, tmp_path: Path
) -> None:
    courier, sink = make(Traits(tracks_state=True, refresh_s=60))
    accept(outbox, clock, incident(1), incident(2), incident(3))
    courier.step()
    courier.step()
    with sqlite3.connect(tmp_path / "outbox.db") as other:
        other.execute("UPDATE outbox SET body = x'00' WHERE incident_id IN (?, ?)", (ids_of(1), ids_of(2)))
    other.close()
    run(courier, clock, 61)
    assert ids(sink) == [(1, 1), (3, 1), (3, 1)]
    assert [d.incident_id for d in outbox.dead()] == [ids_of(2)]


def ids_of(number: int) -> str:
    return incident(number).incident_id


script = st.lists(st.sampled_from(["take", "later", "never", "crash"]), max_size=25)
batches = st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=4), max_size=6)


@settings(max_examples=60, deadline=None)
@given(script, batches, st.sampled_from([Traits(), Traits(tracks_state=True), Traits(recording=True, batch=3)]))
def test_whatever_happens_order_is_kept_and_nothing_is_lost_or_sent_twice(
    tmp_path_factory: pytest.TempPathFactory, script: list[str], batches: list[list[tuple[int, int]]], traits: Traits
) -> None:
    """Failures, refusals and restarts in any order; a `crash` is a new courier after a write of unknown outcome."""
    clock, taken = Clock(), []
    outbox = Outbox(tmp_path_factory.mktemp("random") / "outbox.db")

    class Crash(BaseException):
        pass

    class Sink(Scripted):
        def write(self, rows: Any) -> None:
            what = script.pop(0) if script else "take"
            if what in ("take", "crash"):
                taken.append([(i.incident_id, i.revision) for i in rows])
            if what == "crash":
                crashed.extend(taken[-1])
                raise Crash
            if what != "take":
                raise later() if what == "later" else never()

    def fresh() -> Courier:
        return Courier("ops", Sink(traits=traits), outbox, clock=clock, jitter=lambda: 0.5, traits=traits)

    crashed: list[tuple[str, int]] = []
    courier = fresh()
    for batch in [*batches, []]:
        accept(outbox, clock, *(incident(n, r, "resolved" if r == 4 else "updated") for n, r in batch))
        for _ in range(60):
            try:
                run(courier, clock, 40_000 if not batch else 2)
                break
            except Crash:
                courier = fresh()
    rows = [key for batch in taken for key in batch]
    assert outbox.idle(["ops"])
    for key in set(rows):
        assert rows.count(key) <= 1 + crashed.count(key)
    if not traits.recording:
        for n in (1, 2, 3):
            revisions = [r for i, r in rows if i == incident(n).incident_id]
            assert revisions == sorted(revisions)
    accepted = {(incident(n).incident_id, r) for batch in batches for n, r in batch}
    if traits.recording:
        assert set(rows) | {(d.incident_id, d.revision) for d in outbox.dead()} == accepted
    outbox.close()
