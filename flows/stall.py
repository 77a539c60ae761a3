"""Saying that the flow stands still. It cannot say so itself: what it judges leaves with the next saved state.

So a thread of its own looks at the outputs and hands a `pipeline_health` incident to the notifier directly. What it
has opened is kept in a file, so that neither a crash nor a restart tells it twice or forgets its end.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog

from flows.incidents import text
from flows.incidents.policy import Policy
from flows.incidents.silences import Silences
from schemas.incident import Incident

KIND = "pipeline_health"
NS = 1_000_000_000

OPEN_AFTER_S = 10.0
"""How long the flow stands still before it is told."""

CLOSE_AFTER_S = 30.0
"""How long it goes on before the end is told: room for one batch is no end."""

LOOK_EVERY_S = 1.0

_log = structlog.get_logger(__name__)

Take = Callable[[Sequence[Incident]], object]


class StallWatch:
    """Opens one incident per stall and resolves it.

    Parameters
    ----------
    stalled
        Why the flow stands still; empty while it does not.
    accept
        Takes responsibility for incidents; taking one again changes nothing.
    path
        File that remembers the open incident.
    process
        Number of this process.
    policy, silences
        Of the kind.
    record
        Told of both revisions when the stall is over, for until then the database takes nothing.
    dashboard_url, runbook_url
        Bases of links; empty leaves them out.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stalled: Callable[[], str],
        accept: Take,
        path: Path,
        *,
        process: int,
        policy: Policy,
        silences: Silences | None = None,
        record: Take = lambda _: None,
        dashboard_url: str = "",
        runbook_url: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stalled, self._accept, self._record = stalled, accept, record
        self._path = path
        self._dims = {"process": str(process)}
        self._policy, self._silences = policy, silences or Silences([])
        self._urls = {"dashboard": dashboard_url, "runbook": runbook_url}
        self._clock = clock
        self._first_s: float | None = None
        """Begin of the stall that lasts or has only just ended."""
        self._last_s = 0.0
        self._told: list[Incident] = self._restored()
        """Revisions of the stall that on-call knows of or is about to."""
        self._accepted = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stall-watch", daemon=True)
        if self._told:
            self._first_s = self._last_s = clock()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more. What is open stays open for the next start."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(LOOK_EVERY_S)

    def _run(self) -> None:
        while not self._ending.wait(LOOK_EVERY_S):
            try:
                self.look()
            except Exception as problem:  # a full disk, as a rule: the next look tries again
                _log.warning("that the flow stands still could not be told", why=str(problem))

    def look(self) -> None:
        """Look once."""
        now = self._clock()
        reason = self._stalled()
        if reason:
            self._first_s = now if self._first_s is None else self._first_s
            self._last_s = now
        if self._first_s is None:
            return
        over = now - self._last_s >= CLOSE_AFTER_S
        if not self._told and reason and now - self._first_s >= OPEN_AFTER_S:
            self._tell(self._opened(reason, now))
        elif len(self._told) == 1 and over:
            self._tell(self._resolved())
        if self._accepted < len(self._told):
            self._accept(self._told[self._accepted :])
            self._accepted = len(self._told)
        if over or len(self._told) == 2:
            self._forget()

    def _tell(self, incident: Incident) -> None:
        """Remember first: a crash in between must not make it another one."""
        told = [*self._told, incident]
        partial = self._path.with_suffix(".partial")
        with open(partial, "wb") as file:
            file.write(msgspec.json.encode(told))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._path)
        self._told = told

    def _forget(self) -> None:
        told, self._told, self._accepted, self._first_s = self._told, [], 0, None
        self._path.unlink(missing_ok=True)
        if told:
            self._record(told)

    def _restored(self) -> list[Incident]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[Incident])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as problem:
            _log.warning("which stall was told before is not known", path=str(self._path), why=str(problem))
            return []

    # ------------------------------------------------------------------ what is said
    def _opened(self, reason: str, now: float) -> Incident:
        assert self._first_s is not None, "a stall has a begin"
        first_ns, now_ns = int(self._first_s * NS), int(now * NS)
        digest = hashlib.blake2b(f"stall|{self._dims}|{first_ns}".encode(), digest_size=6).hexdigest()
        incident_id = f"{KIND}-{digest}"
        return Incident(
            incident_id=incident_id,
            revision=1,
            kind=KIND,
            severity=self._policy.fixed_severity or "critical",
            state="open",
            dims=self._dims,
            opened_at=text.rfc3339(first_ns),
            detected_at=text.rfc3339(now_ns),
            observed=round(now - self._first_s, 3),
            expected=0.0,
            unit="s at a standstill",
            score=1.0,
            summary=f"Tidegauge itself stands still and raises no alerts: {reason}. Kafka keeps the events.",
            links=text.links(KIND, incident_id, self._dims, first_ns, now_ns, **self._urls),
            notify=not self._silences.match(KIND, self._dims, now_ns),
        )

    def _resolved(self) -> Incident:
        return msgspec.structs.replace(
            self._told[0], revision=2, state="resolved", resolved_at=text.rfc3339(int(self._last_s * NS))
        )
