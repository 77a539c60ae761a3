"""Everything that can go wrong, as one tree.

::

    TidegaugeError
    ├── BadEvent        one message does not fit; becomes a dead letter, never reaches the stream
    ├── BadSettings     a setting is wrong; stops the start (exit code 2)
    ├── DeliveryFailed  a sink could not hand over a batch; `retryable` says whether trying again can help
    └── StateUnreadable saved state is truncated, foreign or of another format; means a cold start, said aloud
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a message became a dead letter. A closed list: the values are metric labels."""

    EMPTY = "empty"  # no payload (a Kafka tombstone)
    NOT_PARSABLE = "not_parsable"  # truncated, invalid UTF-8, not JSON / CSV / protobuf at all
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"  # negative tokens, ratio above 1, oversized string or number
    BAD_TIMESTAMP = "bad_timestamp"  # `at` cannot be read, or lies outside 2000-01-01 .. 2100-01-01
    CLOCK_AHEAD = "clock_ahead"  # `at` lies further ahead of its Kafka timestamp than allowed
    TOKEN_SEMANTICS = "token_semantics"  # cache_read + cache_write > input, or reasoning > output
    TOO_LARGE = "too_large"  # payload above the accepted size
    TOO_LATE = "too_late"  # the event's window closed longer ago than the allowed lateness


class TidegaugeError(Exception):
    """Base of all our errors; its message says what, where and what to do next."""


class BadEvent(TidegaugeError):
    """One message that does not fit its schema.

    Parameters
    ----------
    reason
        Entry of the closed list.
    detail
        What exactly, for a person. Never holds the payload.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class BadSettings(TidegaugeError):
    """A setting that is unknown, of the wrong type or contradictory; the message carries path and line."""


class DeliveryFailed(TidegaugeError):
    """A sink could not hand over a batch.

    Parameters
    ----------
    message
        What failed and what to do; never holds a secret.
    retryable
        Whether the same batch may succeed later.
    retry_after_s
        Seconds that the receiver asked us to wait, if it did.
    """

    def __init__(self, message: str, *, retryable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class StateUnreadable(TidegaugeError):
    """Saved state is truncated, foreign, or of a format that this version does not read."""
