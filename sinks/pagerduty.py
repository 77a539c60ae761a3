"""PagerDuty: incidents as alerts, through Events API v2."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.errors import BadSettings
from schemas.incident import Incident
from sinks import wording
from sinks.http import CONNECT_S, READ_S, Endpoint, check_url
from sinks.secrets import Secret, as_secret
from sinks.traits import Traits

URL = "https://events.pagerduty.com/v2/enqueue"
"""For accounts in the EU service region: https://events.eu.pagerduty.com/v2/enqueue"""
MAX_DEDUP_KEY_CHARS = 255
MAX_SUMMARY_CHARS = 1_024
"""https://developer.pagerduty.com/docs/events-api-v2/trigger-events/"""
MAX_BODY_BYTES = 512_000
"""512 KB: https://developer.pagerduty.com/docs/events-api-v2/overview/"""
ROUTING_KEY_CHARS = 32
RATE_PER_S = 1.9
BURST = 5
"""Together at most 119 events in any minute; about 120 per minute and key are allowed:
https://developer.pagerduty.com/docs/events-api-v2/overview/"""
MAX_SHORT_CHARS = 255
"""For names (component, group): not limited by PagerDuty, but nobody reads longer ones."""
MAX_LINKS = 10


class PagerDuty:
    """Triggers an alert while an incident is open and resolves it afterwards, always under the incident's own key.

    Parameters
    ----------
    name
        Name of the destination.
    routing_key
        Integration key of the PagerDuty service (32 characters); a secret.
    url
        Where events are posted to; other than the default for service regions and tests.
    rate_per_s
        Events per second. Destinations that share one routing key share PagerDuty's limit too.
    connect_s, read_s
        Time-outs in seconds.

    Raises
    ------
    BadSettings
        The routing key has not the length of one, or the address is no https address.
    """

    def __init__(
        self,
        name: str,
        routing_key: Secret | str,
        *,
        url: Secret | str = URL,
        rate_per_s: float = RATE_PER_S,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
    ) -> None:
        self.name = name
        self.traits = Traits(tracks_state=True, rate_per_s=rate_per_s, burst=BURST)
        self._key = as_secret(routing_key)
        if len(self._key.reveal()) != ROUTING_KEY_CHARS or not self._key.reveal().isalnum():
            raise BadSettings(f"pagerduty `{name}`: `secret` must be the integration's routing key, 32 characters long")
        url = as_secret(url)
        check_url(url, f"pagerduty `{name}`")
        self._endpoint = Endpoint(f"pagerduty `{name}`", url, secrets=[self._key], connect_s=connect_s, read_s=read_s)

    def write(self, rows: Sequence[Incident]) -> None:
        """Send one event per incident.

        Raises
        ------
        DeliveryFailed
            429, 5xx, network errors and answers that are not PagerDuty's are retryable.
        """
        for incident in rows:
            reply = self._endpoint.post(event(incident, self._key))
            if reply.status != 202:
                # Anything else that claims success comes from something between us and PagerDuty.
                advice = f"Check `secret_file` of destination `{self.name}`."
                raise self._endpoint.refused(reply, advice=advice, retryable=True if reply.ok else None)

    def close(self) -> None:
        """Close the connection."""
        self._endpoint.close()


def event(incident: Incident, routing_key: Secret) -> bytes:
    """Build the body of one event: `resolve` for resolved incidents, otherwise `trigger`; at most 512 KB."""
    head = {"routing_key": routing_key.reveal(), "dedup_key": dedup_key(incident.incident_id)}
    if incident.state == "resolved":
        return msgspec.json.encode({**head, "event_action": "resolve"})
    links = [{"href": url, "text": wording.cut(name, 255)} for name, url in wording.web_links(incident.links)]
    body: dict[str, Any] = {
        **head,
        "event_action": "trigger",
        "client": "Tidegauge",
        "payload": _payload(incident),
        "links": links[:MAX_LINKS],
    }
    dashboard = dict(wording.web_links({"dashboard": incident.links.get("dashboard", "")}))
    if dashboard:
        body["client_url"] = next(iter(dashboard.values()))
    encoded = msgspec.json.encode(body)
    if len(encoded) > MAX_BODY_BYTES:
        body["payload"]["custom_details"] = {
            "note": f"Details left out: with them the event has {len(encoded)} bytes, PagerDuty takes {MAX_BODY_BYTES}."
        }
        encoded = msgspec.json.encode(body)
    return encoded


def dedup_key(incident_id: str) -> str:
    """The key under which PagerDuty keeps the alert: the incident's id, or a digest of it where it is too long."""
    readable = incident_id.encode("utf-8", "replace").decode()
    if len(readable) <= MAX_DEDUP_KEY_CHARS:
        return readable
    return f"tidegauge-{hashlib.sha256(incident_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _payload(incident: Incident) -> dict[str, Any]:
    where = wording.dims_words(incident.dims)
    summary = f"{wording.kind_words(incident.kind)}: {wording.clean(incident.summary) or where}"
    payload: dict[str, Any] = {
        "summary": wording.cut(summary, MAX_SUMMARY_CHARS),
        "source": wording.cut(where, MAX_SHORT_CHARS),
        "severity": incident.severity,
        "timestamp": wording.clean(incident.detected_at),
        "class": incident.kind,
        "custom_details": _details(incident),
    }
    for field, dims in (
        ("component", ("model", "gpu_uuid", "node", "product")),
        ("group", ("team", "pool", "cluster")),
    ):
        value = next((incident.dims[d] for d in dims if incident.dims.get(d)), None)
        if value:
            payload[field] = wording.cut(wording.clean(value), MAX_SHORT_CHARS)
    return payload


def _details(incident: Incident) -> dict[str, Any]:
    details: dict[str, Any] = {
        "observed": wording.observed_words(incident),
        "score": wording.number(incident.score),
        "since": wording.clean(incident.opened_at),
        "state": incident.state,
        "revision": incident.revision,
        "incident_id": wording.clean(incident.incident_id),
    }
    if incident.impact_usd_per_hour is not None:
        details["impact"] = wording.usd_per_hour(incident.impact_usd_per_hour)
    if cause := wording.cause_words(incident):
        details["cause"] = cause
    if incident.contributors:
        details["contributors"] = [wording.contributor_words(c, incident.unit) for c in incident.contributors]
    if incident.factors:
        details["factors"] = [f"{wording.percent(f.share)} {wording.clean(f.name)}" for f in incident.factors]
    if bars := wording.sparkline(incident.sparkline):
        details["latest_windows"] = bars
    if incident.related:
        details["related"] = [wording.clean(r) for r in incident.related]
    return details
