"""Why a request failed, as a verdict that on-call can act on.

The order is a contract: it numbers the columns of `errors_by_cause` and the ClickHouse enum. Append, never reorder.
"""

from __future__ import annotations

from enum import IntEnum


class Cause(IntEnum):
    """Cause verdict of a failed request. `NONE` marks success."""

    NONE = 0
    VENDOR_QUOTA = 1
    VENDOR_CAPACITY = 2
    GATEWAY_LIMIT = 3
    CONCURRENCY = 4
    BUDGET = 5
    SELF_HOSTED_SATURATION = 6
    TIMEOUT = 7
    AUTH = 8
    BAD_REQUEST = 9
    MODEL = 10
    UNKNOWN = 11

    @property
    def label(self) -> str:
        """The name as it stands in incidents, tables and metrics."""
        return self.name.lower()


CAUSES: tuple[Cause, ...] = tuple(Cause)[1:]
"""All causes of failure, in column order (without `NONE`)."""

RETRY_HELPS: dict[Cause, bool] = {
    Cause.VENDOR_QUOTA: True,  # after the quota window has passed
    Cause.VENDOR_CAPACITY: True,  # with backoff
    Cause.GATEWAY_LIMIT: False,  # our own configuration has to change
    Cause.CONCURRENCY: True,  # at lower parallelism
    Cause.BUDGET: False,
    Cause.SELF_HOSTED_SATURATION: False,  # retries add to the queue: scale or shed
    Cause.TIMEOUT: True,
    Cause.AUTH: False,
    Cause.BAD_REQUEST: False,
    Cause.MODEL: False,
    Cause.UNKNOWN: False,
}
"""Whether sending the same request again can help."""
