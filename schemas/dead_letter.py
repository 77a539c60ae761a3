"""Dead letters: messages that could not be used, with the reason and the way back to their source."""

from __future__ import annotations

from msgspec import Struct

from schemas.errors import Reason

MAX_PAYLOAD_CHARS = 2048
"""Characters of the redacted payload that a dead letter keeps."""


class DeadLetter(Struct, frozen=True, kw_only=True):
    """One unusable message. Identity: topic, partition, offset and `position` within the message."""

    reason: Reason
    detail: str
    """What exactly was wrong; never the payload."""
    topic: str
    partition: int
    offset: int
    position: int = 0
    """Index of the event inside its message (formats that carry many events per message)."""
    at_ns: int
    """Event time where it is known, otherwise the partition's highest event time so far (0 before any)."""
    payload: str
    """Truncated to `MAX_PAYLOAD_CHARS`, secrets and prompt text removed."""
