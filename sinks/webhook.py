"""Generic webhook: the incident as JSON, signed after Standard Webhooks, and the check that a receiver makes.

The scheme: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from schemas.errors import BadSettings
from schemas.incident import Incident
from sinks.http import CONNECT_S, READ_S, Endpoint, check_url
from sinks.secrets import Secret, as_secret
from sinks.traits import Traits

PREFIX = "whsec_"
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
"""The scheme asks for 24 to 64 random bytes."""
TOLERANCE_S = 300.0


class BadSignature(Exception):
    """A request that was not signed with our secret, or was signed too long ago."""


class Webhook:
    """Posts one signed request per incident revision.

    A retry carries the same `webhook-id`, so a receiver that remembers ids sees every revision once.

    Parameters
    ----------
    name
        Name of the destination.
    url
        Where to; https, or this machine.
    secret
        One or, while it is being changed, several signing secrets (``whsec_…``), separated by spaces; None sends
        unsigned requests.
    rate_per_s
        Requests per second; None is unlimited.
    connect_s, read_s
        Time-outs in seconds.
    clock
        Epoch seconds, for the signed time.

    Raises
    ------
    BadSettings
        The address is not https, or the secret is none.
    """

    def __init__(
        self,
        name: str,
        url: Secret | str,
        secret: Secret | str | None = None,
        *,
        rate_per_s: float | None = None,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.traits = Traits(rate_per_s=rate_per_s)
        self._clock = clock
        self._secret = None if secret is None else as_secret(secret)
        texts = [] if self._secret is None else self._secret.reveal().split()
        try:
            for text in texts:
                _key(text)
        except ValueError as error:
            raise BadSettings(f"webhook `{name}`: `secret` {error}") from None
        url = as_secret(url)
        check_url(url, f"webhook `{name}`")
        hidden = [Secret(part) for text in texts for part in (text, text.removeprefix(PREFIX))]
        self._endpoint = Endpoint(
            f"webhook `{name}`", url, secrets=hidden, connect_s=connect_s, read_s=read_s, clock=clock
        )

    def write(self, rows: Sequence[Incident]) -> None:
        """Post one request per incident.

        Raises
        ------
        DeliveryFailed
            408, 425, 429, 5xx and network errors are retryable.
        """
        for incident in rows:
            body = msgspec.json.encode(incident)
            headers = sign(self._secret, message_id(incident), int(self._clock()), body)
            reply = self._endpoint.post(body, headers)
            if not reply.ok:
                advice = f"Check `url` and `secret` of destination `{self.name}` and what the receiver logged."
                raise self._endpoint.refused(reply, advice=advice)

    def close(self) -> None:
        """Close the connection."""
        self._endpoint.close()


def message_id(incident: Incident) -> str:
    """The `webhook-id`: the same whenever the same revision is sent."""
    identity = f"{incident.incident_id}\n{incident.revision}".encode("utf-8", "surrogatepass")
    return f"msg_{hashlib.sha256(identity).hexdigest()[:32]}"


def sign(secret: Secret | str | None, webhook_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Headers of one request: `webhook-id`, `webhook-timestamp` and, with a secret, `webhook-signature`.

    Parameters
    ----------
    secret
        One or several secrets, separated by spaces; there is one signature for each.
    webhook_id
        Identity of the message.
    timestamp_s
        Epoch seconds of this attempt.
    body
        The exact bytes that are sent.
    """
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp_s)}
    if secret is not None:
        signed = f"{webhook_id}.{timestamp_s}.".encode() + body
        signatures = [_signature(_key(text), signed) for text in as_secret(secret).reveal().split()]
        headers["webhook-signature"] = " ".join(signatures)
    return headers


def verify(
    secret: Secret | str, headers: Mapping[str, str], body: bytes, *, now: float, tolerance_s: float = TOLERANCE_S
) -> str:
    """Check a request on the receiver's side, before anything in it is believed.

    Parameters
    ----------
    secret
        One or several secrets, separated by spaces.
    headers
        The request's headers; upper and lower case are the same.
    body
        The exact bytes received, before any parsing.
    now
        Epoch seconds.
    tolerance_s
        How far the signed time may lie in the past or future. Within it a recorded request could be sent again: also
        refuse an id that was seen before.

    Returns
    -------
    str
        The `webhook-id`.

    Raises
    ------
    BadSignature
        Says what is wrong.

    Examples
    --------
    >>> secret = "whsec_" + "c2VjcmV0" * 4
    >>> headers = sign(secret, "msg_1", 1_700_000_000, b"{}")
    >>> verify(secret, headers, b"{}", now=1_700_000_010)
    'msg_1'
    """
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not webhook_id or not re.fullmatch(r"[0-9]{1,15}", timestamp, re.ASCII):
        raise BadSignature("webhook-id or webhook-timestamp is missing or malformed")
    if abs(now - int(timestamp)) > tolerance_s:
        raise BadSignature(f"webhook-timestamp is more than {tolerance_s:g} s away from now")
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    expected = [_signature(_key(text), signed).encode() for text in as_secret(secret).reveal().split()]
    for signature in given.get("webhook-signature", "").split():
        if any(hmac.compare_digest(signature.encode(), e) for e in expected):
            return webhook_id
    raise BadSignature("no webhook-signature fits")


def _key(text: str) -> bytes:
    """Bytes of a secret in its text form."""
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(f"must be `{PREFIX}` and the base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes")
    return key


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
