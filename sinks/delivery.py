"""Delivery: incidents are accepted at once and durably, and reach every destination in its own time."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from schemas.errors import BadSettings, DeliveryFailed
from schemas.incident import Incident
from sinks.base import Sink
from sinks.clock import SteadyClock
from sinks.courier import GIVE_UP_AFTER_S, MAX_ATTEMPTS, Courier
from sinks.outbox import KEEP_S, Outbox
from sinks.routing import Router
from sinks.traits import Traits

LONGEST_SLEEP_S = 60.0
"""A sleeping thread looks into the outbox at least so often: `tidegauge outbox retry` may have changed it."""
PRUNE_EVERY_S = 3_600.0

_log = structlog.get_logger("tidegauge.delivery")


class Notifier:
    """Takes incidents from the stream and delivers them, one thread per destination.

    `accept` writes to disk and returns: no destination's trouble reaches the stream, nor another destination. What was
    accepted is delivered after a restart, even after a `kill -9`; what was under way at that moment may come twice,
    with the same identity (dedup key, `webhook-id`, Kafka key with revision).

    Parameters
    ----------
    sinks
        Sinks by name of destination.
    router
        Which incidents go where; its destinations are the names of `sinks`.
    outbox_path
        SQLite file, of this process alone.
    clock
        Epoch seconds; by default one that does not jump when the wall clock is set.
    rate_per_s
        Requests per second by name of destination, where it is other than the sink's own.
    max_attempts, give_up_after_s
        When a revision is given up: it stays in the outbox as dead, is counted and logged.
    keep_s
        Seconds for which delivered revisions are remembered.
    jitter
        Random numbers in [0, 1), to spread retries.
    start
        Whether to start the threads. Without them, `couriers` are stepped by hand.

    Raises
    ------
    BadSettings
        The router names a destination that has no sink, or the outbox cannot be opened.
    """

    def __init__(
        self,
        sinks: Mapping[str, Sink[Incident]],
        router: Router,
        outbox_path: str | Path,
        *,
        clock: Callable[[], float] | None = None,
        rate_per_s: Mapping[str, float] | None = None,
        max_attempts: int = MAX_ATTEMPTS,
        give_up_after_s: float = GIVE_UP_AFTER_S,
        keep_s: float = KEEP_S,
        jitter: Callable[[], float] = random.random,
        start: bool = True,
    ) -> None:
        if missing := [name for name in router.destination_names if name not in sinks]:
            raise BadSettings(f"destinations: no sink for {', '.join(missing)}")
        self._sinks = dict(sinks)
        self._router = router
        self._clock = clock = clock if clock is not None else SteadyClock()
        self._rates = dict(rate_per_s or {})
        traits = {name: self._traits(name, sink) for name, sink in self._sinks.items()}
        self._recording = frozenset(name for name, t in traits.items() if t.recording)
        self._tracking = frozenset(name for name, t in traits.items() if t.tracks_state)
        self._outbox = Outbox(outbox_path, keep_s=keep_s)
        self._outbox.right_times(clock())
        self._outbox.prune(clock())
        self._pruned_at = clock()
        self.couriers = {
            name: Courier(
                name,
                sink,
                self._outbox,
                clock=clock,
                jitter=jitter,
                traits=traits[name],
                max_attempts=max_attempts,
                give_up_after_s=give_up_after_s,
            )
            for name, sink in self._sinks.items()
        }
        self._settled = threading.Condition()
        self._closing = threading.Event()
        self._wake = {name: threading.Event() for name in self._sinks}
        self._threads = {
            name: threading.Thread(target=self._work, args=(name,), name=f"deliver-{name}", daemon=True)
            for name in self._sinks
        }
        orphans = [name for name, n in self._outbox.counts().items() if name not in self._sinks and "waiting" in n]
        if orphans:
            _log.warning("incidents wait for destinations that are no longer configured", destinations=orphans)
        if start:
            for thread in self._threads.values():
                thread.start()

    def _traits(self, name: str, sink: Sink[Incident]) -> Traits:
        traits: Traits = getattr(sink, "traits", Traits())
        return replace(traits, rate_per_s=self._rates[name]) if name in self._rates else traits

    def accept(self, incidents: Sequence[Incident]) -> int:
        """Take responsibility for incidents. They are on disk when it returns; accepting them again changes nothing.

        A resolved revision also goes to every destination that got an earlier one: severity may have sunk below what
        a route asks for, and an alert that was opened somewhere must be closed there. While people are not to be
        notified, that holds for destinations that track state themselves.

        Returns
        -------
        int
            Deliveries that were new.

        Raises
        ------
        DeliveryFailed
            The outbox cannot be written (disk full): nothing was accepted; retryable.
        """
        if self._closing.is_set():
            raise RuntimeError("the notifier is closed")
        now = self._clock()
        try:
            pairs = self._pairs(incidents)
            new = self._outbox.accept(pairs, now) if pairs else 0
            if now - self._pruned_at > PRUNE_EVERY_S:
                self._pruned_at = now
                self._outbox.prune(now)
        except sqlite3.Error as error:
            message = f"outbox: cannot accept {len(incidents)} incidents ({error}); check the disk of `state_dir`."
            raise DeliveryFailed(message, retryable=True) from error
        for name in {name for name, _ in pairs}:
            self._wake[name].set()
        return new

    def _pairs(self, incidents: Sequence[Incident]) -> list[tuple[str, Incident]]:
        pairs: list[tuple[str, Incident]] = []
        told: dict[str, set[str]] = {}
        for incident in incidents:
            names = set(self._router.targets(incident, self._recording))
            before = told.setdefault(incident.incident_id, set())
            if incident.state == "resolved":
                earlier = before.union(self._outbox.destinations_of(incident.incident_id))
                names |= earlier if incident.notify else earlier & (self._tracking | self._recording)
            before |= names
            pairs += [(name, incident) for name in self._sinks if name in names]
        return pairs

    def _work(self, name: str) -> None:
        """Body of a destination's thread."""
        courier, wake = self.couriers[name], self._wake[name]
        while not self._closing.is_set():
            # Cleared before looking, so that nothing accepted meanwhile is slept through.
            wake.clear()
            try:
                rest = courier.step()
            except Exception as error:
                # Whatever it is (a full disk, as a rule): without its thread a destination would fall silent.
                rest = courier.step_failed(error)
            with self._settled:
                self._settled.notify_all()
            if rest != 0.0 and not self._closing.is_set():
                self._sleep(wake, rest, courier)

    def _sleep(self, wake: threading.Event, rest: float | None, courier: Courier) -> None:
        rest = LONGEST_SLEEP_S if rest is None else min(rest, LONGEST_SLEEP_S)
        if courier.paused_s(self._clock()) > 0:
            # New incidents are no reason to end a pause; only closing is.
            self._closing.wait(rest)
        else:
            wake.wait(rest)

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing waits any more; returns whether that was so within the time."""
        names = list(self._sinks)
        with self._settled:
            return self._settled.wait_for(lambda: self._outbox.idle(names), timeout_s)

    def status(self) -> dict[str, dict[str, Any]]:
        """Condition of every destination, without secrets.

        Returns
        -------
        dict
            By destination: `waiting` and `dead_kept` (rows in the outbox), `oldest_waiting_s`, since the start `sent`,
            `retried`, `dead`, `superseded`, `unneeded`, `refreshed`, `fallbacks`; `paused_s`, `failures` (in
            succession), `last_error`, `last_sent_at`, `configured`. Destinations that are gone from the settings but
            have rows are there too, with `configured` false.
        """
        now = self._clock()
        counts = self._outbox.counts()
        shown: dict[str, dict[str, Any]] = {}
        for name in [*self._sinks, *(n for n in counts if n not in self._sinks)]:
            n = counts.get(name, {})
            oldest = self._outbox.oldest_waiting_at(name)
            shown[name] = {
                "configured": name in self._sinks,
                "waiting": n.get("waiting", 0),
                "dead_kept": n.get("dead", 0),
                "oldest_waiting_s": 0.0 if oldest is None else max(0.0, now - oldest),
                **(self.couriers[name].status(now) if name in self.couriers else {}),
            }
        return shown

    def close(self, timeout_s: float = 20.0) -> None:
        """Stop. What waits stays in the outbox; a request under way is given its time-out to end."""
        if self._closing.is_set():
            return
        self._closing.set()
        for wake in self._wake.values():
            wake.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads.values():
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        for name, sink in self._sinks.items():
            if not self._threads[name].is_alive():
                sink.close()
        # A thread that is still in a request may yet note its success; the file is then closed with the process.
        if not any(thread.is_alive() for thread in self._threads.values()):
            self._outbox.close()
