"""Prometheus Alertmanager: incidents as alerts, through its API v2."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from schemas.incident import Incident
from sinks import wording
from sinks.http import CONNECT_S, READ_S, Endpoint, check_url
from sinks.secrets import Secret, as_secret
from sinks.traits import Traits

REFRESH_S = 60.0
"""Firing alerts must be sent again regularly, resolved ones for up to five minutes; Alertmanager resolves what it does
not hear of for `resolve_timeout` (5 min by default): https://prometheus.io/docs/alerting/latest/alerts_api/"""
REFRESH_RESOLVED_S = 300.0
BATCH = 64
MAX_TEXT_CHARS = 2_000
OWN_LABELS = ("alertname", "kind", "severity")


class Alertmanager:
    """Keeps Alertmanager's view of the incidents up to date; grouping, inhibition and notification are its own.

    Labels are the alert's identity, so they hold only what never changes in an incident's life: `alertname`
    (``TidegaugeCostSpike``), `kind`, and the dimensions. What changes (severity, summary, numbers) is in annotations.

    Parameters
    ----------
    name
        Name of the destination.
    url
        Base address, such as ``http://alertmanager:9093``; may hold ``user:password@``.
    token
        Bearer token, if Alertmanager stands behind something that asks for one.
    severity_label
        Whether `severity` is a label too, for routing trees that need it. The price: when an incident changes its
        severity, a second alert begins, and the first ends `resolve_timeout` later.
    rate_per_s
        Requests per second; None is unlimited.
    refresh_s
        Seconds between two reports of what is open; below Alertmanager's `resolve_timeout`.
    connect_s, read_s
        Time-outs in seconds.
    """

    def __init__(
        self,
        name: str,
        url: Secret | str,
        *,
        token: Secret | str | None = None,
        severity_label: bool = False,
        rate_per_s: float | None = None,
        refresh_s: float = REFRESH_S,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
    ) -> None:
        self.name = name
        self.traits = Traits(
            tracks_state=True,
            rate_per_s=rate_per_s,
            batch=BATCH,
            refresh_s=refresh_s,
            refresh_resolved_s=REFRESH_RESOLVED_S,
        )
        self._severity_label = severity_label
        url = as_secret(url)
        # In-cluster Alertmanagers speak plain http as a rule; their network is the operator's own.
        check_url(url, f"alertmanager `{name}`", allow_http=True)
        token = None if token is None else as_secret(token)
        self._endpoint = Endpoint(
            f"alertmanager `{name}`",
            _alerts_url(url),
            secrets=[] if token is None else [token],
            headers={} if token is None else {"Authorization": f"Bearer {token.reveal()}"},
            connect_s=connect_s,
            read_s=read_s,
        )

    def write(self, rows: Sequence[Incident]) -> None:
        """Report incidents in one request.

        Raises
        ------
        DeliveryFailed
            429, 5xx and network errors are retryable.
        """
        if not rows:
            return
        reply = self._endpoint.post(msgspec.json.encode([alert(r, severity_label=self._severity_label) for r in rows]))
        if reply.status != 200:
            advice = f"Check `url` of destination `{self.name}`; it must be an Alertmanager with API v2."
            raise self._endpoint.refused(reply, advice=advice, retryable=True if reply.ok else None)

    def close(self) -> None:
        """Close the connection."""
        self._endpoint.close()


def alert(incident: Incident, *, severity_label: bool = False) -> dict[str, Any]:
    """Build one alert. Without `endsAt` (not resolved) Alertmanager itself puts the end at now + `resolve_timeout`."""
    built: dict[str, Any] = {
        "labels": labels(incident, severity_label=severity_label),
        "annotations": _annotations(incident),
        "startsAt": incident.opened_at,
    }
    if incident.state == "resolved":
        built["endsAt"] = incident.resolved_at or incident.detected_at
    dashboard = wording.web_links({"dashboard": incident.links.get("dashboard", "")})
    if dashboard:
        built["generatorURL"] = dashboard[0][1]
    return built


def labels(incident: Incident, *, severity_label: bool = False) -> dict[str, str]:
    """Build the alert's identity: the same for every revision of an incident (unless severity is part of it)."""
    words = re.sub(r"[^A-Za-z0-9]+", " ", incident.kind).split()
    built = {"alertname": "Tidegauge" + "".join(w[:1].upper() + w[1:] for w in words), "kind": incident.kind}
    if severity_label:
        built["severity"] = incident.severity
    for dim in sorted(incident.dims):
        value = wording.cut(wording.clean(incident.dims[dim]), MAX_TEXT_CHARS)
        # An empty label and a missing one are the same to Alertmanager.
        if value:
            built[_label_name(dim, built)] = value
    return built


def _label_name(dim: str, taken: dict[str, str]) -> str:
    """Turn a dimension's name into a label name (``[a-zA-Z_][a-zA-Z0-9_]*``) that no other dimension has."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", dim)
    if not name or name[0].isdigit() or name.startswith("__") or name in OWN_LABELS:
        name = f"dim_{name.lstrip('_')}"
    if name in taken:
        name = f"{name}_{hashlib.sha256(dim.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return name


def _annotations(incident: Incident) -> dict[str, str]:
    texts = {
        "summary": incident.summary,
        "severity": incident.severity,
        "incident_id": incident.incident_id,
        "revision": str(incident.revision),
        "state": incident.state,
        "observed": wording.observed_words(incident),
        "score": wording.number(incident.score),
        "cause": wording.cause_words(incident),
        "contributors": "; ".join(wording.contributor_words(c, incident.unit) for c in incident.contributors[:5]),
        "factors": "; ".join(f"{wording.percent(f.share)} {f.name}" for f in incident.factors[:6]),
        "latest_windows": wording.sparkline(incident.sparkline),
    }
    if incident.impact_usd_per_hour is not None:
        texts["impact"] = wording.usd_per_hour(incident.impact_usd_per_hour)
    texts = {k: wording.cut(wording.clean(v), MAX_TEXT_CHARS) for k, v in texts.items()}
    for key in ("dashboard", "runbook"):
        for _, url in wording.web_links({key: incident.links.get(key, "")}):
            texts[f"{key}_url"] = url
    return {k: v for k, v in texts.items() if v}


def _alerts_url(url: Secret) -> Secret:
    parts = urlsplit(url.reveal())
    path = parts.path.rstrip("/")
    if not path.endswith("/api/v2/alerts"):
        path = path.removesuffix("/api/v2") + "/api/v2/alerts"
    return Secret(urlunsplit(parts._replace(path=path, fragment="")))
