"""Handing incidents over to the outbox, however long its disk is full: said aloud, tried again, never skipped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from schemas.errors import DeliveryFailed
from schemas.incident import Incident

FIRST_WAIT_S = 0.2
MAX_WAIT_S = 5.0
SAY_EVERY_S = 60.0


class Patient:
    """Calls `accept` until it succeeds. The flow waits meanwhile, and Kafka keeps what it would have read.

    Parameters
    ----------
    accept
        Takes responsibility for incidents, or raises a retryable `DeliveryFailed` and has taken none.
    wait
        Waits for so many seconds.
    """

    def __init__(
        self,
        accept: Callable[[Sequence[Incident]], object],
        *,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._accept, self._wait = accept, wait
        self._trouble = ""

    def missing(self) -> str:
        """What keeps incidents from being accepted; empty for nothing."""
        return self._trouble

    def accept(self, incidents: Sequence[Incident]) -> None:
        """Hand over; returns when the outbox has them."""
        rest_s, unsaid_s = FIRST_WAIT_S, SAY_EVERY_S
        while True:
            try:
                self._accept(incidents)
            except DeliveryFailed as failure:
                if not failure.retryable:
                    raise
                self._trouble = str(failure)
                if unsaid_s >= SAY_EVERY_S:
                    structlog.get_logger().error("incidents cannot be accepted; the flow waits", why=str(failure))
                    unsaid_s = 0.0
                self._wait(rest_s)
                unsaid_s += rest_s
                rest_s = min(2 * rest_s, MAX_WAIT_S)
            else:
                if self._trouble:
                    structlog.get_logger().info("incidents are accepted again")
                self._trouble = ""
                return
