"""What to deliver next, and when: pure functions of what is waiting and of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.incident import SEVERITIES
from sinks.traits import Traits

FIRST_WAIT_S = 1.0
MAX_WAIT_S = 60.0
"""Longest wait that we choose ourselves, of a revision or of a whole destination: a receiver that is back should not
wait long for what it missed."""
MAX_RETRY_AFTER_S = 3_600.0
"""Longest pause that a receiver may ask for."""
MAX_DIGEST = 5_000
"""Most incidents in one digest: their contents are in memory while it is sent."""
CRITICAL = SEVERITIES.index("critical")


class Waiting(NamedTuple):
    """One undelivered revision at one destination."""

    seq: int
    incident_id: str
    revision: int
    state: str
    urgency: int
    """Index of the severity."""
    attempts: int
    next_at: float
    """Epoch seconds before which it is not tried again."""
    accepted_at: float
    settled_revision: int = 0
    """Newest revision of the incident that this destination is done with; 0 if none."""
    told: bool = False
    """Whether an earlier revision was ever handed to the receiver, even without a known outcome."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    send: list[Waiting] = field(default_factory=list)
    superseded: list[Waiting] = field(default_factory=list)
    """Never to be sent: the receiver knows, or will now get, a newer revision."""
    unneeded: list[Waiting] = field(default_factory=list)
    """Never to be sent: resolves of what the receiver was never told about."""
    wake_at: float | None = None
    """Epoch seconds at which to plan again, if nothing is to be sent now; None: when something new is accepted."""


def plan(
    waiting: Sequence[Waiting],
    now: float,
    traits: Traits,
    *,
    batch: int | None = None,
    failed: frozenset[str] = frozenset(),
) -> Plan:
    """Choose what one destination gets next.

    A recording destination gets everything in the order of acceptance. The others get, most severe incident first, the
    newest revision of each incident, and an incident that failed waits for its own time without holding up others.

    A destination that takes digests gets a storm in few messages: where `digest_from` incidents or more are due,
    critical ones go first, one by one unless they are as many themselves, and the rest follows in one `write`.

    Parameters
    ----------
    waiting
        All undelivered revisions, in order of acceptance; for a recording destination the first ones are enough.
    now
        Epoch seconds.
    traits
        Of the destination.
    batch
        Most incidents in one request, and no digests; None is what the traits say.
    failed
        Incidents of the last request, if it failed: others go first, or one that can never succeed would be tried
        again at the end of every pause and let nobody pass.
    """
    size = traits.batch if batch is None else batch
    if traits.recording:
        if not waiting:
            return Plan()
        if waiting[0].next_at > now:
            return Plan(wake_at=waiting[0].next_at)
        return Plan(send=list(waiting[:size]))

    newest: dict[str, Waiting] = {}
    first_seq: dict[str, int] = {}
    superseded: list[Waiting] = []
    for row in waiting:
        first_seq.setdefault(row.incident_id, row.seq)
        if row.revision <= row.settled_revision:
            superseded.append(row)
            continue
        rival = newest.get(row.incident_id)
        if rival is None or row.revision > rival.revision:
            newest[row.incident_id] = row
        if rival is not None:
            superseded.append(min(row, rival, key=lambda r: r.revision))
    unneeded = [r for r in newest.values() if traits.tracks_state and r.state == "resolved" and not r.told]
    candidates = [r for r in newest.values() if r not in unneeded]
    due = [r for r in candidates if r.next_at <= now]
    due.sort(key=lambda r: (r.incident_id in failed, -r.urgency, first_seq[r.incident_id]))
    if due:
        return Plan(_batch(due, size, traits.digest_from if batch is None else None), superseded, unneeded)
    wake_at = min((r.next_at for r in candidates), default=None)
    return Plan([], superseded, unneeded, wake_at)


def _batch(due: list[Waiting], size: int, digest_from: int | None) -> list[Waiting]:
    """What goes into one request, of what is due, most severe first."""
    if digest_from is None or len(due) < digest_from:
        return due[:size]
    rest = [r for r in due if r.urgency != CRITICAL]
    if len(due) - len(rest) >= digest_from:
        return due[:MAX_DIGEST]
    # A critical one that has just failed lets the others pass; it is not hidden among them.
    return due[:size] if due[0].urgency == CRITICAL or len(rest) < digest_from else rest[:MAX_DIGEST]


def wait_s(failures: int, jitter: float, *, longest_s: float = MAX_WAIT_S) -> float:
    """Seconds to wait after so many failures in succession.

    Doubled each time, and spread so that many senders do not return at the same moment.

    Parameters
    ----------
    failures
        At least 1.
    jitter
        Random number in [0, 1): the wait lies between half and all of the doubled time.

    References
    ----------
    M. Brooker (2015), Exponential backoff and jitter ("equal jitter"),
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    # 2**30 seconds are beyond any limit; larger powers would only overflow.
    return min(longest_s, FIRST_WAIT_S * 2.0 ** min(failures - 1, 30)) * (0.5 + jitter / 2)


class Bucket:
    """Token bucket: `rate_per_s` on average, `burst` at once.

    Parameters
    ----------
    rate_per_s
        None is unlimited.
    burst
        Size of the bucket; full at the start.
    last_at
        When the last request was made, before this start: the bucket counts as empty since then, so that restarts
        never exceed the rate.
    """

    def __init__(self, rate_per_s: float | None, burst: int, last_at: float | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst) if last_at is None else 0.0
        self._at = last_at

    def free_at(self, now: float) -> float:
        """Epoch seconds from which on one more request is allowed; not after `now` if it is allowed at once."""
        if self._rate_per_s is None:
            return now
        self._fill(now)
        # A hair's breadth of rounding must not cost another round of waiting.
        return now if self._tokens >= 1.0 - 1e-9 else now + (1.0 - self._tokens) / self._rate_per_s

    def take(self, now: float) -> None:
        """Count one request."""
        self._fill(now)
        self._tokens -= 1.0

    def _fill(self, now: float) -> None:
        # A clock that was set back gives no tokens, and counts on from there.
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        if self._rate_per_s is not None:
            self._tokens = min(self._burst, self._tokens + passed * self._rate_per_s)
