"""What delivery has to know about a sink, beside how to write to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traits:
    """How incidents want to be handed to one kind of receiver.

    Parameters
    ----------
    recording
        The receiver keeps a record: it gets every revision in order, also those with `notify=False`. Otherwise it
        addresses people: of several waiting revisions of one incident only the newest is sent.
    tracks_state
        The receiver itself knows what is open (PagerDuty, Alertmanager). It needs no resolve for what it was never
        told about, and it must be told of a resolve even while people are not (silence, maintenance).
    rate_per_s
        Requests per second that the receiver allows on average; None is unlimited.
    burst
        Requests that may follow each other at once.
    batch
        Most incidents in one `write`.
    digest_from
        From so many incidents due at once, `write` is given them all and makes one message of them; None is never.
    refresh_s
        Seconds after which the newest sent revision of every open incident is sent again; None is never.
    refresh_resolved_s
        How long resolved incidents take part in that.
    """

    recording: bool = False
    tracks_state: bool = False
    rate_per_s: float | None = None
    burst: int = 1
    batch: int = 1
    digest_from: int | None = None
    refresh_s: float | None = None
    refresh_resolved_s: float = 300.0
