"""The notifier with its threads, real files, real HTTP receivers, and processes that are killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from schemas.errors import BadSettings, DeliveryFailed
from sinks.delivery import Notifier
from sinks.outbox import Outbox
from sinks.outbox_review import OutboxReview
from sinks.pagerduty import PagerDuty
from sinks.routing import Route, Router
from sinks.slack import Slack
from sinks.traits import Traits
from sinks.webhook import Webhook
from tests.sinks.incidents import incident
from tests.sinks.receiver import Answer, Receiver, receiver
from tests.sinks.scripted import Clock, Scripted, later, run

ROOT = Path(__file__).resolve().parents[2]
TRACKER, RECORD = Traits(tracks_state=True), Traits(recording=True, batch=100)
WAIT_S = 15.0
"""Far longer than anything here takes; only a defect waits it out."""


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


def notifier(
    stack: ExitStack, path: Path, sinks: list[Any], routes: list[Route] | None = None, **more: Any
) -> Notifier:
    by_name = {s.name: s for s in sinks}
    it = Notifier(by_name, Router(routes or [], list(by_name)), path / "outbox.db", **more)
    stack.callback(it.close)
    return it


def stepped(it: Notifier, clock: Clock, for_s: float = 0.0) -> None:
    for courier in it.couriers.values():
        run(courier, clock, for_s)


def test_everything_accepted_reaches_every_destination(tmp_path: Path, stack: ExitStack, server: Receiver) -> None:
    hook, bus = Webhook("hook", server.url), Scripted("bus", RECORD)
    it = notifier(stack, tmp_path, [hook, bus])
    assert it.accept([incident(n) for n in range(25)]) == 50
    assert it.drain(WAIT_S)
    assert len(server.requests) == len(bus.sent) == 25
    assert it.accept([incident(n) for n in range(25)]) == 0
    assert it.drain(WAIT_S)
    assert len(server.requests) == 25
    shown = it.status()
    assert [(s["sent"], s["waiting"], s["dead"], s["configured"]) for s in shown.values()] == [(25, 0, 0, True)] * 2


def test_stuck_destination_delays_no_other_and_not_the_stream(
    tmp_path: Path, stack: ExitStack, server: Receiver
) -> None:
    with receiver(Answer(hold=True)) as stuck:
        slow, quick = Webhook("slow", stuck.url, read_s=30), Webhook("quick", server.url)
        it = notifier(stack, tmp_path, [slow, quick])
        seen = threading.Event()
        server.on_request = lambda _: seen.set() if len(server.requests) >= 10 else None
        it.accept([incident(n) for n in range(10)])
        assert seen.wait(WAIT_S)
        assert it.status()["slow"]["waiting"] == 10
        assert not it.drain(0.05)
        stuck.over.set()
        it.close()


def test_failing_destination_shows_in_status_without_secrets(
    tmp_path: Path, stack: ExitStack, server: Receiver
) -> None:
    server.default = Answer(503, b"echo: T0/B0/verysecrettoken")
    asked = threading.Event()
    server.on_request = lambda _: asked.set()
    with capture_logs() as logs:
        it = notifier(stack, tmp_path, [Slack("ops", f"{server.url}/services/T0/B0/verysecrettoken")])
        it.accept([incident()])
        assert asked.wait(WAIT_S)
        it.close()
    courier = it.couriers["ops"]
    assert courier.counters["retried"] == 1
    assert "HTTP 503" in str(courier.last_error)
    assert [log["event"] for log in logs] == ["destination fails"]
    assert "verysecret" not in str(courier.status(0.0)) + str(logs)


def test_pagerduty_hears_one_trigger_and_one_resolve(tmp_path: Path, stack: ExitStack, server: Receiver) -> None:
    server.default = Answer(202)
    it = notifier(stack, tmp_path, [PagerDuty("pager", "k" * 32, url=server.url)])
    it.accept([incident(1, 1), incident(2, 1), incident(2, 2, "resolved")])
    assert it.drain(WAIT_S)
    it.accept([incident(1, 2, "resolved")])
    assert it.drain(WAIT_S)
    sent = [orjson.loads(r.body) for r in server.requests]
    assert [s["event_action"] for s in sent] == ["trigger", "resolve"]
    assert {s["dedup_key"] for s in sent} == {incident(1).incident_id}


def test_waiting_incidents_are_delivered_after_a_restart(tmp_path: Path, stack: ExitStack) -> None:
    clock = Clock()
    first = notifier(stack, tmp_path, [Scripted("ops")], clock=clock, start=False)
    first.accept([incident(1), incident(2)])
    first.close()
    sink = Scripted("ops", clock=clock)
    second = notifier(stack, tmp_path, [sink], clock=clock, start=False)
    assert second.accept([incident(1), incident(2)]) == 0
    stepped(second, clock)
    assert len(sink.sent) == 2


def test_what_is_not_to_be_notified_is_only_recorded(tmp_path: Path, stack: ExitStack) -> None:
    clock, ops, bus = Clock(), Scripted("ops"), Scripted("bus", RECORD)
    it = notifier(stack, tmp_path, [ops, bus], clock=clock, start=False)
    it.accept([incident(1, 1), incident(1, 2, "updated", notify=False)])
    stepped(it, clock)
    assert [r for _, r in ops.sent] == [1]
    assert [r for _, r in bus.sent] == [1, 2]


def test_resolve_follows_the_opening_even_if_routes_or_silences_say_otherwise(tmp_path: Path, stack: ExitStack) -> None:
    clock = Clock()
    ops, pager, quiet = Scripted("ops"), Scripted("pager", TRACKER), Scripted("quiet")
    routes = [Route(["ops", "pager"], min_severity="error")]
    it = notifier(stack, tmp_path, [ops, pager, quiet], routes, clock=clock, start=False)
    it.accept([incident(1, 1), incident(2, 1)])
    stepped(it, clock)
    it.accept([incident(1, 2, "resolved", severity="info"), incident(2, 2, "resolved", notify=False)])
    stepped(it, clock)
    # The more severe one first.
    assert [(i[-1], r) for i, r in pager.sent] == [("1", 1), ("2", 1), ("2", 2), ("1", 2)]
    assert [(i[-1], r) for i, r in ops.sent] == [("1", 1), ("2", 1), ("1", 2)]
    assert quiet.sent == []


def test_rate_can_be_set_per_destination(tmp_path: Path, stack: ExitStack) -> None:
    clock = Clock()
    ops = Scripted("ops", clock=clock)
    it = notifier(stack, tmp_path, [ops], clock=clock, rate_per_s={"ops": 0.1}, start=False)
    it.accept([incident(n) for n in range(3)])
    stepped(it, clock, 100)
    assert [round(t - ops.times[0]) for t in ops.times] == [0, 10, 20]


def test_given_up_incidents_can_be_revived(tmp_path: Path, stack: ExitStack) -> None:
    clock, ops = Clock(), Scripted("ops")
    it = notifier(stack, tmp_path, [ops], clock=clock, max_attempts=1, start=False)
    ops.failures = [later()]
    it.accept([incident()])
    stepped(it, clock)
    assert it.status()["ops"]["dead_kept"] == 1
    assert OutboxReview(tmp_path / "outbox.db").retry("ops", clock()) == {"ops": 1}
    stepped(it, clock, 60)
    assert [len(ops.sent), it.status()["ops"]["dead_kept"]] == [2, 0]


def test_destination_that_is_gone_is_named_and_its_incidents_kept(tmp_path: Path, stack: ExitStack) -> None:
    notifier(stack, tmp_path, [Scripted("old")], start=False).accept([incident()])
    stack.pop_all().close()
    with capture_logs() as logs:
        it = notifier(stack, tmp_path, [Scripted("new")], start=False)
    assert logs[0]["destinations"] == ["old"]
    assert it.status()["old"] == {
        "configured": False,
        "waiting": 1,
        "dead_kept": 0,
        "oldest_waiting_s": pytest.approx(0, abs=99),
    }
    assert it.drain(0.0)


def test_full_disk_refuses_the_batch_and_says_so(tmp_path: Path, stack: ExitStack) -> None:
    it = notifier(stack, tmp_path, [Scripted("ops")], start=False)
    with sqlite3.connect(tmp_path / "outbox.db", isolation_level=None) as other:
        # Another writer that never ends stands for every reason why SQLite cannot write.
        it._outbox._db.execute("PRAGMA busy_timeout=10")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DeliveryFailed, match="cannot accept 1 incidents") as caught:
            it.accept([incident()])
        other.execute("ROLLBACK")
    other.close()
    assert caught.value.retryable
    assert it.accept([incident()]) == 1


def test_router_and_sinks_must_name_the_same_destinations(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="no sink for pager"):
        Notifier({"ops": Scripted("ops")}, Router([], ["ops", "pager"]), tmp_path / "outbox.db")


def test_closed_notifier_takes_nothing_and_closes_its_sinks(tmp_path: Path, stack: ExitStack) -> None:
    ops = Scripted("ops")
    it = notifier(stack, tmp_path, [ops])
    it.close()
    it.close()
    assert ops.closed
    with pytest.raises(RuntimeError):
        it.accept([incident()])
    Outbox(tmp_path / "outbox.db").close()


def test_trouble_with_the_outbox_does_not_end_a_destinations_thread(
    tmp_path: Path, stack: ExitStack, server: Receiver
) -> None:
    it = notifier(stack, tmp_path, [Webhook("hook", server.url)], jitter=lambda: -0.99)
    courier, troubles = it.couriers["hook"], [sqlite3.OperationalError("disk I/O error"), ValueError("secret inside")]
    step = courier.step
    courier.step = lambda: step() if not troubles else raise_(troubles.pop(0))  # type: ignore[method-assign]
    with capture_logs() as logs:
        it.accept([incident()])
        assert it.drain(WAIT_S)
    assert len(server.requests) == 1
    assert "secret inside" not in str(logs)


def test_what_was_taken_while_the_disk_was_full_is_noted_later_and_not_sent_again(
    tmp_path: Path, stack: ExitStack, server: Receiver
) -> None:
    it = notifier(stack, tmp_path, [Webhook("hook", server.url)], jitter=lambda: -0.99)
    outbox, full = it._outbox, [sqlite3.OperationalError("database or disk is full")] * 3
    sent = outbox.sent
    outbox.sent = lambda *a, **k: raise_(full.pop()) if full else sent(*a, **k)  # type: ignore[method-assign, assignment]
    with capture_logs() as logs:
        it.accept([incident()])
        assert it.drain(WAIT_S)
    assert not full
    assert len(server.requests) == 1
    assert [log["error"] for log in logs if log["event"] == "outbox cannot be used"] == ["database or disk is full"] * 3
    assert it.status()["hook"]["sent"] == 1


def test_a_backlog_and_an_outage_at_one_receiver_keep_the_outbox_free_for_others(
    tmp_path: Path, stack: ExitStack, server: Receiver
) -> None:
    down = stack.enter_context(receiver(Answer(503)))
    slow = Webhook("slow", down.url)
    it = notifier(
        stack, tmp_path, [slow, Webhook("quick", server.url)], [Route(["slow"], teams=["search"]), Route(["quick"])]
    )
    it.accept([incident(n) for n in range(2_000)])
    seen = threading.Event()
    server.on_request = lambda _: seen.set()
    it.accept([incident(9_999, dims={"team": "ads"})])
    assert seen.wait(WAIT_S)
    assert it.status()["slow"]["waiting"] == 2_000


def raise_(error: Exception) -> float:
    raise error


KILLED = """
import os, signal, sys
from sinks.delivery import Notifier
from sinks.routing import Router
from sinks.webhook import Webhook
from tests.sinks.incidents import incident

class Dying(Webhook):
    def write(self, rows):
        if sys.argv[3] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(rows)
        os.kill(os.getpid(), signal.SIGKILL)

start = sys.argv[3] != "accepted"
notifier = Notifier({"hook": Dying("hook", sys.argv[1])}, Router([], ["hook"]), sys.argv[2], start=start)
notifier.accept([incident(1), incident(2)])
if not start:
    os.kill(os.getpid(), signal.SIGKILL)
notifier.drain(30)
"""


@pytest.mark.parametrize(("moment", "most"), [("accepted", 1), ("before", 1), ("after", 2)])
def test_kill_at_any_moment_loses_nothing_and_doubles_at_most_one(
    tmp_path: Path, stack: ExitStack, server: Receiver, moment: str, most: int
) -> None:
    arguments = [sys.executable, "-c", KILLED, server.url, str(tmp_path / "outbox.db"), moment]
    ended = subprocess.run(arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    it = notifier(stack, tmp_path, [Webhook("hook", server.url)])
    assert it.accept([incident(1), incident(2)]) == 0, "a replay after the crash brings nothing new"
    assert it.drain(WAIT_S)
    got = Counter(r.headers["webhook-id"] for r in server.requests)
    assert len(got) == 2
    assert sorted(got.values()) == [1, most]
