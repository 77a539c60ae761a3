"""Receivers in every kind of trouble, over real HTTP: what is retried, when, what is given up, and what comes of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from schemas.errors import DeliveryFailed
from schemas.incident import Incident
from sinks.alertmanager import Alertmanager
from sinks.base import Sink
from sinks.clock import SteadyClock
from sinks.courier import Courier
from sinks.outbox import Outbox
from sinks.outbox_review import OutboxReview
from sinks.pagerduty import PagerDuty
from sinks.slack import Slack
from sinks.traits import Traits
from sinks.webhook import Webhook
from tests.servers.proxy import FaultProxy, Mode
from tests.sinks.incidents import incident
from tests.sinks.receiver import Answer, Receiver, receiver
from tests.sinks.scripted import Clock, run

QUICK = {"connect_s": 0.5, "read_s": 0.2}
SINKS: dict[str, Callable[[str], Any]] = {
    "slack": lambda url: Slack("ops", url, **QUICK),
    "pagerduty": lambda url: PagerDuty("ops", "k" * 32, url=url, **QUICK),
    "alertmanager": lambda url: Alertmanager("ops", url, **QUICK),
    "webhook": lambda url: Webhook("ops", url, **QUICK),
}
TAKEN = {"slack": Answer(200), "pagerduty": Answer(202), "alertmanager": Answer(200), "webhook": Answer(204)}
DATE = (("Date", "Sun, 01 Mar 2026 10:00:00 GMT"), ("Retry-After", "Sun, 01 Mar 2026 10:02:00 GMT"))
TROUBLES = {
    "429 with seconds": (Answer(429, b"rate_limited", (("Retry-After", "120"),)), 120.0),
    "429 with a date": (Answer(raw=b"HTTP/1.1 429 X\r\n%s: %s\r\n%s: %s\r\nContent-Length: 0\r\n\r\n" % tuple(
        text.encode() for header in DATE for text in header)), 120.0),
    "500": (Answer(500), 0.0),
    "503": (Answer(503), 0.0),
    "no answer": (Answer(hold=True), 0.0),
    "broken answer": (Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort"), 0.0),
}  # fmt: skip
GOOD = (400, 403, 404, 410)


class Away:
    """A courier to one real sink, an outbox on disk, and a clock set by hand."""

    def __init__(self, folder: Path, sink: Sink[Incident], clock: Clock, **options: Any) -> None:
        self.clock, self.sink, self._folder, self._options = clock, sink, folder, options
        self.outbox, self.review = Outbox(folder / "outbox.db"), OutboxReview(folder / "outbox.db")
        self.start()

    def start(self) -> None:
        traits: Traits = self.sink.traits  # type: ignore[attr-defined]
        self.courier = Courier(
            "ops", self.sink, self.outbox, clock=self.clock, jitter=lambda: 0.5, traits=traits, **self._options
        )

    def restart(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(self._folder / "outbox.db")
        self.start()

    def accept(self, *incidents: Incident) -> None:
        self.outbox.accept([("ops", i) for i in incidents], self.clock())

    def run(self, for_s: float) -> None:
        run(self.courier, self.clock, for_s)


@pytest.fixture(params=sorted(SINKS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as it:
        yield it


@pytest.fixture
def server(stack: ExitStack) -> Receiver:
    return stack.enter_context(receiver())


@pytest.fixture
def make(stack: ExitStack, tmp_path: Path) -> Callable[..., Away]:
    def away(kind: str, url: str, **options: Any) -> Away:
        sink = SINKS[kind](url)
        stack.callback(sink.close)
        it = Away(tmp_path, sink, Clock(), **options)
        stack.callback(lambda: it.outbox.close())
        return it

    return away


def told(server: Receiver, kind: str) -> list[tuple[str, str]]:
    """Identity and state of everything that was posted."""
    out = []
    for request in server.requests:
        body = orjson.loads(request.body)
        if kind == "slack":
            if "blocks" not in body:
                continue  # the same once more as plain text
            identity = body["blocks"][-1]["elements"][0]["text"].split(" · ")[0]
            out.append((identity, "resolved" if "Resolved" in body["text"] else "open"))
        elif kind == "pagerduty":
            out.append((body["dedup_key"], "resolved" if body["event_action"] == "resolve" else "open"))
        elif kind == "alertmanager":
            out += [(a["annotations"]["incident_id"], "resolved" if "endsAt" in a else "open") for a in body]
        else:
            out.append((body["incident_id"], body["state"]))
    return out


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_is_waited_out_across_a_restart_and_everything_is_told_once_in_order(
    kind: str, trouble: str, server: Receiver, make: Callable[..., Away]
) -> None:
    answer, asked_s = TROUBLES[trouble]
    server.default = TAKEN[kind]
    it = make(kind, server.url)
    server.answers = [answer]
    it.accept(incident(1))
    begun = it.clock()
    it.run(0.3)
    assert len(server.requests) == 1
    it.restart()
    it.run(asked_s * 0.9)
    assert len(server.requests) == 1, "a restart is no reason to come back early"
    it.run(130)
    it.accept(incident(1, 2, "resolved"))
    it.run(5)
    states = [state for _, state in told(server, kind)]
    assert states[:2] == ["open", "open"], "the first one failed"
    assert states == sorted(states), "nothing opens again after its end"
    if kind != "alertmanager":  # it is told again and again
        assert states[2:] == ["resolved"]
    assert states[-1] == "resolved"
    assert len({identity for identity, _ in told(server, kind)}) == 1
    assert it.courier.last_sent_at is not None
    assert it.courier.last_sent_at - begun >= asked_s
    assert it.outbox.idle(["ops"])


@pytest.mark.parametrize("status", GOOD)
def test_a_refusal_for_good_is_given_up_at_once_and_said_and_the_next_is_tried(
    kind: str, status: int, server: Receiver, make: Callable[..., Away]
) -> None:
    server.default = Answer(status, b"gone")
    it = make(kind, server.url)
    it.accept(incident(1))
    with capture_logs() as logs:
        it.run(30)
    assert [(d.incident_id, d.attempts) for d in it.outbox.dead()] == [(incident(1).incident_id, 1)]
    assert f"HTTP {status}" in it.outbox.dead()[0].error
    assert [log["event"] for log in logs] == ["incident not delivered, given up"]
    server.default = TAKEN[kind]
    it.accept(incident(2))
    it.run(30)
    assert it.courier.counters["sent"] == 1
    assert it.review.retry("ops", it.clock()) == {"ops": 1}
    it.run(30)
    assert it.courier.counters["sent"] == 2


def test_what_opened_changed_and_ended_while_away_is_one_message_or_none(
    kind: str, server: Receiver, make: Callable[..., Away]
) -> None:
    server.default = Answer(503)
    it = make(kind, server.url)
    it.accept(incident(9))
    it.run(10)
    revisions = [incident(1), incident(1, 2, "updated"), incident(1, 3, "updated"), incident(1, 4, "resolved")]
    for revision in revisions:
        it.accept(revision)
    it.accept(incident(2), incident(2, 2, "updated"))
    server.requests.clear()
    server.default = TAKEN[kind]
    it.run(63)
    got = told(server, kind)
    one, two = (incident(n).incident_id for n in (1, 2))
    states = {n: [state for i, state in got if n in i] for n in (one, two)}
    assert set(states[two]) <= {"open", "updated"}
    assert states[two]
    # A pager needs no alert about what is over; a channel and a ticket system are told that it was.
    assert states[one] == ([] if kind in ("pagerduty", "alertmanager") else ["resolved"])


def test_a_name_that_does_not_resolve_is_retried(kind: str, make: Callable[..., Away]) -> None:
    it = make(kind, "https://receiver.invalid/x")
    it.accept(incident(1))
    it.run(0.1)
    assert it.courier.counters["retried"] == 1
    assert "cannot be resolved" in str(it.courier.last_error)


def test_a_refused_connection_is_retried_until_somebody_listens(kind: str, make: Callable[..., Away]) -> None:
    with receiver() as it_was:
        url = it_was.url
    it = make(kind, url)
    it.accept(incident(1))
    it.run(200)
    assert it.courier.counters["retried"] >= 3
    assert "cannot connect" in str(it.courier.last_error)


@contextmanager
def dripping(piece: bytes) -> Iterator[tuple[str, threading.Event]]:
    """A listener that sends one piece every 50 ms for ever, and an event for when it was left."""
    left = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(0.05)
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while True:
                        connection.sendall(piece)
                        try:
                            if not connection.recv(65_536):
                                break
                        except TimeoutError:
                            continue
            left.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", left
        thread.join(20)


@pytest.mark.parametrize("piece", [b"a", b"X-Header: 1\r\n", b"\r\n\r\n"], ids=["one line", "headers", "body"])
def test_an_answer_that_drips_for_ever_is_broken_off(piece: bytes) -> None:
    with dripping(piece) as (url, left):
        sink = Webhook("ops", url, connect_s=0.2, read_s=0.2)
        with pytest.raises(DeliveryFailed, match=r"no answer within 0\.2 s") as caught:
            sink.write([incident()])
        assert caught.value.retryable
        assert left.wait(20), "the connection must not be kept"
        sink.close()


@pytest.mark.parametrize("fault", ["cut", "refuse", "half_open"])
def test_a_connection_that_breaks_or_falls_silent_is_waited_out(
    kind: str, fault: str, server: Receiver, make: Callable[..., Away]
) -> None:
    server.default = TAKEN[kind]
    with FaultProxy(("127.0.0.1", int(server.url.rpartition(":")[2]))) as proxy:
        it = make(kind, proxy.url)
        it.accept(incident(1))
        it.run(0.1)
        assert len(server.requests) == 1
        getattr(proxy, fault)()
        it.accept(incident(2), incident(3))
        it.run(10)
        assert len(server.requests) == 1, "nothing gets through"
        assert it.courier.counters["retried"] >= 2
        proxy.heal()
        it.run(45)
        assert it.outbox.idle(["ops"])
        ids = [identity for identity, _ in told(server, kind)]
        if kind != "alertmanager":  # it is told again what is open
            assert len(ids) == 3
        assert len(set(ids)) == 3


def test_an_answer_that_is_lost_means_once_more_under_the_same_identity(
    kind: str, server: Receiver, make: Callable[..., Away]
) -> None:
    server.default = TAKEN[kind]
    with FaultProxy(("127.0.0.1", int(server.url.rpartition(":")[2]))) as proxy:
        it = make(kind, proxy.url)
        proxy.drop_after("answer")
        it.accept(incident(1))
        it.run(10)
        assert proxy.trapped == 1
        first, second = server.requests
        assert first.body == second.body
        assert first.headers.get("webhook-id") == second.headers.get("webhook-id")
        assert it.courier.counters["sent"] == 1
        # What ends before the receiver is known to know of it is told all the same: it may know.
        proxy.drop_after("answer", then=Mode(refusing=True))
        it.accept(incident(2))
        it.run(0.1)
        it.accept(incident(2, 2, "resolved"))
        proxy.heal()
        it.run(30)
        assert told(server, kind)[-1][1] == "resolved"
        assert it.outbox.idle(["ops"])


def test_a_storm_at_slack_is_a_handful_of_messages_with_critical_ones_first(
    server: Receiver, make: Callable[..., Away]
) -> None:
    it = make("slack", server.url)
    storm = [incident(n, severity="critical" if n % 300 == 7 else "warning") for n in range(1_000)]
    it.accept(*storm)
    begun = it.clock()
    it.run(30)
    assert it.outbox.idle(["ops"])
    assert len(server.requests) == 4 + 1
    assert it.courier.last_sent_at is not None
    assert it.courier.last_sent_at - begun < 6
    texts = [orjson.loads(r.body)["text"] for r in server.requests]
    assert all("critical" in text for text in texts[:4])
    assert "996 incidents at once" in texts[4]


def test_a_storm_that_waited_out_a_long_limit_is_told_in_one_message(
    server: Receiver, make: Callable[..., Away]
) -> None:
    it = make("slack", server.url)
    server.answers = [Answer(429, b"", (("Retry-After", "600"),))]
    it.accept(incident(0))
    it.run(1)
    for n in range(1, 60):
        it.accept(incident(n))
        if n % 2:
            it.accept(incident(n, 2, "resolved"))
        it.run(5)
    assert len(server.requests) == 1
    it.run(700)
    assert len(server.requests) == 2
    assert "60 incidents at once, 30 open" in orjson.loads(server.requests[1].body)["text"]
    assert it.outbox.idle(["ops"])


def test_what_waits_is_bounded_least_severe_first_and_said(server: Receiver, make: Callable[..., Away]) -> None:
    server.default = Answer(503)
    it = make("webhook", server.url, max_waiting=10)
    it.accept(*(incident(n, severity="critical" if n < 5 else "info") for n in range(30)))
    it.accept(*(incident(0, revision, "updated", severity="critical") for revision in range(2, 40)))
    with capture_logs() as logs:
        it.run(60)
    assert it.outbox.waiting_count("ops") == 10
    assert {r.incident_id for r in it.outbox.waiting("ops")} >= {incident(n).incident_id for n in range(5)}
    assert it.courier.counters["dead"] == 20
    assert sum(log["event"] == "incident not delivered, given up" for log in logs) == 20
    assert "more than 10 revisions wait" in it.outbox.dead()[0].error


def test_an_incident_that_alertmanager_refuses_costs_no_other_its_refresh(
    server: Receiver, make: Callable[..., Away]
) -> None:
    it = make("alertmanager", server.url)
    it.accept(*(incident(n) for n in range(3)))
    it.run(10)
    server.requests.clear()
    server.answers = [Answer(400), Answer(200), Answer(400), Answer(200)]
    it.run(55)
    assert [len(orjson.loads(r.body)) for r in server.requests] == [3, 1, 1, 1]
    assert it.courier.counters["refreshed"] == 2


def test_alertmanager_that_stays_away_is_given_up_although_refreshes_fail_too(
    server: Receiver, make: Callable[..., Away]
) -> None:
    it = make("alertmanager", server.url, give_up_after_s=600.0)
    it.accept(incident(1))
    it.run(10)
    server.default = Answer(503)
    it.accept(incident(2))
    it.run(1_000)
    assert [d.incident_id for d in it.outbox.dead()] == [incident(2).incident_id]


def test_a_wall_clock_that_is_set_back_or_ahead_delays_and_hurries_nothing(
    server: Receiver, make: Callable[..., Away]
) -> None:
    it = make("webhook", server.url)
    wall, ticks = Clock(), Clock(100.0)
    clock = SteadyClock(wall=wall, ticks=ticks)
    it.courier._clock = clock
    server.answers = [Answer(429, b"", (("Retry-After", "30"),))]
    it.accept(incident(1))
    it.courier.step()
    for jump_s in (-30 * 86_400.0, 60 * 86_400.0):
        wall.now += jump_s
        rest = it.courier.step()
        assert rest is not None
        assert 0 < rest <= 30
    ticks.now += 31
    assert it.courier.step() == 0.0
    assert it.courier.counters["sent"] == 1
