"""Slack: one message per incident revision, through an incoming webhook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from schemas.incident import Incident
from sinks.http import CONNECT_S, READ_S, Endpoint, check_url
from sinks.secrets import Secret, as_secret
from sinks.slack_digest import digest, digest_text
from sinks.slack_message import fallback_text, message
from sinks.traits import Traits

RATE_PER_S = 1.0
"""One message a second per webhook, https://docs.slack.dev/apis/web-api/rate-limits"""

DIGEST_FROM = 10
"""From so many incidents due at once, which would take as many seconds, they become one message."""


class Slack:
    """Posts incidents to a Slack incoming webhook, or to one that accepts the same payload (Discord's `/slack`).

    HTTP 400 means that Slack did not understand our blocks: the incident is then sent once more as plain text, so that
    a layout error never costs an alert. 403, 404 and 410 mean that the webhook is gone and are not retried
    (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors).

    Parameters
    ----------
    name
        Name of the destination.
    url
        The webhook's address. It is a secret: whoever has it can post.
    rate_per_s
        Messages per second; Slack allows one.
    connect_s, read_s
        Time-outs in seconds.
    """

    def __init__(
        self,
        name: str,
        url: Secret | str,
        *,
        rate_per_s: float = RATE_PER_S,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
    ) -> None:
        self.name = name
        self.traits = Traits(rate_per_s=rate_per_s, digest_from=DIGEST_FROM)
        self.fallbacks = 0
        """Messages that Slack took only as plain text."""
        url = as_secret(url)
        check_url(url, f"slack `{name}`")
        self._endpoint = Endpoint(f"slack `{name}`", url, connect_s=connect_s, read_s=read_s)

    def write(self, rows: Sequence[Incident]) -> None:
        """Post one message per incident, or one about all of them if they are many.

        Raises
        ------
        DeliveryFailed
            429, 5xx and network errors are retryable.
        """
        if len(rows) >= DIGEST_FROM:
            self._send(digest(rows), digest_text(rows))
            return
        for incident in rows:
            self._send(message(incident), fallback_text(incident))

    def _send(self, rich: dict[str, Any], plain: str) -> None:
        reply = self._endpoint.post(_encode(rich))
        fell_back = reply.status == 400
        if fell_back:
            reply = self._endpoint.post(_encode({"text": plain, "mrkdwn": False, "unfurl_links": False}))
        if not reply.ok:
            advice = f"Check that the webhook of destination `{self.name}` still exists in Slack."
            raise self._endpoint.refused(reply, advice=advice)
        self.fallbacks += fell_back

    def close(self) -> None:
        """Close the connection."""
        self._endpoint.close()


def _encode(body: dict[str, Any]) -> bytes:
    return orjson.dumps(body)
