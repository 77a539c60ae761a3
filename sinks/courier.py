"""A courier carries what waits in the outbox to one destination: when, how often, and until when."""

from __future__ import annotations

import re
import sqlite3
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from schemas.errors import DeliveryFailed
from schemas.incident import Incident
from sinks.base import Sink
from sinks.outbox import Outbox
from sinks.schedule import MAX_RETRY_AFTER_S, Bucket, Plan, Waiting, plan, wait_s
from sinks.secrets import HIDDEN
from sinks.traits import Traits

MAX_ATTEMPTS = 3_000
"""More than fit into `GIVE_UP_AFTER_S`, so that age decides; a bound for when somebody sets that higher."""
GIVE_UP_AFTER_S = 86_400.0

MAX_WAITING = 10_000
"""Most revisions that wait for one destination: every step looks at all of them."""
MAX_WAITING_RECORDS = 100_000
"""Most revisions that wait for a record, some 200 MB on disk."""
MAX_NAMED = 20
"""Most log lines about one moment's losses."""

_log = structlog.get_logger("tidegauge.delivery")


class Courier:
    """Delivers to one sink, one step at a time. It starts no thread and never sleeps: `step` says when to come again.

    Parameters
    ----------
    name
        Name of the destination.
    sink
        Where to deliver.
    outbox
        What waits.
    clock
        Epoch seconds.
    jitter
        Random numbers in [0, 1).
    traits
        How the sink wants to be served.
    max_attempts, give_up_after_s
        A revision is given up after so many attempts, or when an attempt fails so long after it was accepted.
    max_waiting
        Most revisions that may wait; beyond it the least severe, of a record the oldest, are given up. None is what
        suits the receiver.
    """

    def __init__(
        self,
        name: str,
        sink: Sink[Incident],
        outbox: Outbox,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        traits: Traits,
        max_attempts: int = MAX_ATTEMPTS,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        max_waiting: int | None = None,
    ) -> None:
        self.name = name
        self.traits = traits
        self.counters = {"sent": 0, "retried": 0, "dead": 0, "superseded": 0, "unneeded": 0, "refreshed": 0}
        """Since the start; `retried` counts failed attempts that will be repeated."""
        self.last_error: str | None = None
        """What went wrong last; None again after a success."""
        self.last_sent_at: float | None = None
        self._sink = sink
        self._outbox = outbox
        self._clock = clock
        self._jitter = jitter
        self._max_attempts = max_attempts
        self._give_up_after_s = give_up_after_s
        self._max_waiting = max_waiting or (MAX_WAITING_RECORDS if traits.recording else MAX_WAITING)
        self._bucket = Bucket(traits.rate_per_s, traits.burst, outbox.last_sent_at(name))
        self._paused_until, self._failures = outbox.pause(name)
        self._refresh_at = clock()
        # After a batch was refused for good, so many are sent one by one, to find the one that is to blame.
        self._singly = 0
        self._failed: frozenset[str] = frozenset()
        # Taken by the receiver, but the outbox could not note it: noted before anything else, or it would go out again.
        self._unnoted: tuple[Sequence[Waiting], float] | None = None

    @property
    def failures(self) -> int:
        """Failed attempts in succession."""
        return self._failures

    def paused_s(self, now: float) -> float:
        """Seconds for which the destination rests after a failure."""
        return max(0.0, self._paused_until - now)

    def step(self) -> float | None:
        """Do the one next thing that is due.

        Returns
        -------
        float | None
            Seconds until the next step can do something (0: at once); None if only a new incident can change that.
        """
        now = self._clock()
        self._trim(now)
        if (rest := max(self.paused_s(now), self._bucket.free_at(now) - now)) > 0:
            return rest
        self._note()
        refresh = self.traits.refresh_s is not None and now >= self._refresh_at
        if refresh and not self._failures:
            return self._refresh(now)
        todo = self._plan(now)
        self._drop(todo, now)
        if todo.send:
            self._deliver(todo.send)
            return 0.0
        # In trouble it comes last: refreshes that fail must not keep what waits from being tried and given up.
        if refresh:
            return self._refresh(now)
        times = [t for t in (todo.wake_at, self._refresh_at if self.traits.refresh_s is not None else None) if t]
        return max(0.0, min(times) - now) if times else None

    def _plan(self, now: float) -> Plan:
        batch = 1 if self._singly else None
        # Only a record can be planned from its first rows; for people the newest revision may be the last row.
        waiting = self._outbox.waiting(self.name, (batch or self.traits.batch) if self.traits.recording else -1)
        return plan(waiting, now, self.traits, batch=batch, failed=self._failed)

    def _drop(self, todo: Plan, now: float) -> None:
        self._outbox.settle(todo.superseded, "superseded", now)
        self._outbox.settle(todo.unneeded, "unneeded", now)
        self.counters["superseded"] += len(todo.superseded)
        self.counters["unneeded"] += len(todo.unneeded)

    def _deliver(self, rows: Sequence[Waiting]) -> None:
        incidents: list[Incident] = []
        readable: list[Waiting] = []
        for row in rows:
            incident = self._outbox.incident(row)
            if incident is None:
                self._bury([row], f"{self.name}: the outbox row cannot be read.", self._clock())
            else:
                incidents.append(incident)
                readable.append(row)
        if not incidents:
            return
        self._outbox.begin(readable)
        failure = self._write(incidents)
        now = self._clock()
        self._failed = frozenset() if failure is None else frozenset(r.incident_id for r in readable)
        if failure is None:
            self._unnoted = readable, now
            self._note()
            self._singly = max(0, self._singly - len(readable))
        elif failure.retryable:
            self._postpone(readable, failure, now)
        elif len(readable) > 1:
            self.last_error = _public(str(failure))
            self._singly = len(readable)
        else:
            self._singly = max(0, self._singly - 1)
            self._bury(readable, _public(str(failure)), now)

    def _note(self) -> None:
        """Note what the receiver has taken."""
        if self._unnoted is not None:
            rows, at = self._unnoted
            self._outbox.sent(self.name, rows, at, refreshed=self.traits.refresh_s is not None)
            self._unnoted = None
            self.counters["sent"] += len(rows)
            self._succeeded(at)

    def _write(self, incidents: list[Incident]) -> DeliveryFailed | None:
        self._bucket.take(self._clock())
        try:
            self._sink.write(incidents)
        except DeliveryFailed as failure:
            return failure
        except Exception as error:
            # A defect of ours in one sink must not end deliveries; its text may hold anything, so it is not shown.
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} in {place.filename.rpartition('/')[2]}, line {place.lineno}"
            return DeliveryFailed(f"{self.name}: unexpected {what}; will be retried.", retryable=True)
        return None

    def _postpone(self, rows: Sequence[Waiting], failure: DeliveryFailed, now: float) -> None:
        error = _public(str(failure))
        self._pause(failure, now, error)
        over = [r for r in rows if self._is_over(r, now)]
        later = [(r, now + wait_s(r.attempts + 1, self._jitter())) for r in rows if not self._is_over(r, now)]
        self._outbox.failed(self.name, later, error, (self._paused_until, self._failures))
        self.counters["retried"] += len(later)
        if over:
            self._bury(over, error, now)

    def _is_over(self, row: Waiting, now: float) -> bool:
        # A revision that waited out its time while we were not running still gets one attempt: this one was it.
        return row.attempts + 1 >= self._max_attempts or now - row.accepted_at >= self._give_up_after_s

    def _pause(self, failure: DeliveryFailed, now: float, error: str) -> None:
        """Rest: as long as the receiver asked, or longer each time."""
        if self._failures == 0:
            _log.warning("destination fails", destination=self.name, error=error)
        self._failures += 1
        self.last_error = error
        rest = wait_s(self._failures, self._jitter())
        if failure.retry_after_s is not None:
            rest = max(rest, min(failure.retry_after_s, MAX_RETRY_AFTER_S))
        self._paused_until = now + rest

    def _bury(self, rows: Sequence[Waiting], error: str, now: float) -> None:
        self._outbox.bury(rows, error, now)
        self.counters["dead"] += len(rows)
        self.last_error = error
        for row in rows[:MAX_NAMED]:
            _log.error(
                "incident not delivered, given up",
                destination=self.name,
                incident_id=row.incident_id,
                revision=row.revision,
                attempts=row.attempts + 1,
                error=error,
            )
        if len(rows) > MAX_NAMED:
            _log.error("further incidents given up", destination=self.name, count=len(rows) - MAX_NAMED, error=error)

    def _trim(self, now: float) -> None:
        """Bound what waits: what would be collapsed anyway goes first, then the least severe, oldest first."""
        if self._outbox.waiting_count(self.name) <= self._max_waiting:
            return
        self._drop(self._plan(now), now)
        excess = self._outbox.waiting_count(self.name) - self._max_waiting
        if excess > 0:
            error = f"{self.name}: more than {self._max_waiting:,} revisions wait; the least severe are given up."
            self._bury(self._outbox.least(self.name, excess, by_urgency=not self.traits.recording), error, now)

    def _succeeded(self, now: float) -> None:
        if self._failures:
            _log.info("destination works again", destination=self.name, failed_attempts=self._failures)
        self._failures, self._paused_until = 0, 0.0
        self.last_error, self.last_sent_at = None, now

    def _refresh(self, now: float) -> float:
        """Send again what the receiver would otherwise forget."""
        assert self.traits.refresh_s is not None
        active = self._outbox.active(self.name, now, self.traits.refresh_resolved_s)
        parts = [active[start : start + self.traits.batch] for start in range(0, len(active), self.traits.batch)]
        for part in parts:
            failure = self._write(part)
            if failure is None:
                self.counters["refreshed"] += len(part)
                self._succeeded(now)
            elif not failure.retryable and len(part) > 1:
                # One of them is refused: the others must not be forgotten with it.
                parts += [[incident] for incident in part]
            else:
                error = _public(str(failure))
                self._pause(failure, self._clock(), error)
                self._outbox.failed(self.name, [], error, (self._paused_until, self._failures))
                if failure.retryable:
                    return 0.0
        self._refresh_at = now + self.traits.refresh_s
        return 0.0

    def status(self, now: float) -> dict[str, Any]:
        """Counters and condition, for `status()` of the whole."""
        return {
            **self.counters,
            "paused_s": round(self.paused_s(now), 3),
            "failures": self._failures,
            "last_error": self.last_error,
            "last_sent_at": self.last_sent_at,
            "fallbacks": int(getattr(self._sink, "fallbacks", 0)),
        }

    def step_failed(self, error: Exception) -> float:
        """Take note that a step failed outside its sink, as when the disk is full; returns seconds to wait."""
        self._failures += 1
        what = f"{error}" if isinstance(error, sqlite3.Error) else type(error).__name__
        self.last_error = f"{self.name}: the outbox cannot be used ({what}); will be retried."
        _log.error("outbox cannot be used", destination=self.name, error=what)
        return wait_s(self._failures, self._jitter())


def _public(text: str) -> str:
    """Second line of defence, for sinks that are not ours: paths of addresses and signing secrets are not shown."""
    text = re.sub(r"(https?://)(?:[^\s/@]*@)?([^\s/?#]+)[/?#][^\s\"'<>)]*", rf"\1\2/{HIDDEN}", text)
    return re.sub(r"whsec_[A-Za-z0-9+/=]+", HIDDEN, text)
