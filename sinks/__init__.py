"""Sinks: where finished rows leave the system. `SINKS` is the table of those that carry incidents.

Adding one: its file, its test, its section in `docs/sinks.md`, and its line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from schemas.errors import BadSettings
from schemas.incident import Incident
from sinks.alertmanager import Alertmanager
from sinks.base import Sink
from sinks.jsonl import JsonLines
from sinks.kafka import TOPIC, KafkaTopic
from sinks.pagerduty import RATE_PER_S as PAGERDUTY_RATE_PER_S
from sinks.pagerduty import URL as PAGERDUTY_URL
from sinks.pagerduty import PagerDuty
from sinks.secrets import Secret, as_secret
from sinks.slack import RATE_PER_S as SLACK_RATE_PER_S
from sinks.slack import Slack
from sinks.webhook import Webhook

__all__ = ["SINKS", "SinkOptions", "build_sink"]


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """What a destination's settings can say; every sink takes what it knows and refuses the rest."""

    name: str
    url: Secret | None = None
    secret: Secret | None = None
    path: str | None = None
    topic: str | None = None
    rate_per_s: float | None = None
    kafka_options: Mapping[str, str | int | bool] = field(default_factory=dict, repr=False)


def _slack(o: SinkOptions) -> Sink[Incident]:
    return Slack(o.name, _needed(o.url, f"slack `{o.name}`", "url"), rate_per_s=o.rate_per_s or SLACK_RATE_PER_S)


def _pagerduty(o: SinkOptions) -> Sink[Incident]:
    key = _needed(o.secret, f"pagerduty `{o.name}`", "secret")
    return PagerDuty(o.name, key, url=o.url or PAGERDUTY_URL, rate_per_s=o.rate_per_s or PAGERDUTY_RATE_PER_S)


def _alertmanager(o: SinkOptions) -> Sink[Incident]:
    url = _needed(o.url, f"alertmanager `{o.name}`", "url")
    return Alertmanager(o.name, url, token=o.secret, rate_per_s=o.rate_per_s)


def _webhook(o: SinkOptions) -> Sink[Incident]:
    return Webhook(o.name, _needed(o.url, f"webhook `{o.name}`", "url"), o.secret, rate_per_s=o.rate_per_s)


def _kafka(o: SinkOptions) -> Sink[Incident]:
    return KafkaTopic(o.name, o.topic or TOPIC, options=o.kafka_options)


def _jsonl(o: SinkOptions) -> Sink[Incident]:
    if o.path is None:
        raise BadSettings(f"jsonl `{o.name}`: needs `path`")
    return JsonLines(o.name, o.path)


SINKS: dict[str, Callable[[SinkOptions], Sink[Incident]]] = {
    "slack": _slack,
    "pagerduty": _pagerduty,
    "alertmanager": _alertmanager,
    "webhook": _webhook,
    "kafka": _kafka,
    "jsonl": _jsonl,
}
"""Sinks for incidents by the `type` of a destination."""

_TAKES = {
    "slack": {"url", "rate_per_s"},
    "pagerduty": {"url", "secret", "rate_per_s"},
    "alertmanager": {"url", "secret", "rate_per_s"},
    "webhook": {"url", "secret", "rate_per_s"},
    "kafka": {"topic"},
    "jsonl": {"path"},
}


def build_sink(
    type: str,  # as the setting is called
    name: str,
    url: Secret | str | None = None,
    secret: Secret | str | None = None,
    path: str | None = None,
    topic: str | None = None,
    rate_per_s: float | None = None,
    kafka_options: Mapping[str, str | int | bool] | None = None,
) -> Sink[Incident]:
    """Build the sink of one destination of the settings. Needs no network.

    Parameters
    ----------
    type
        Key of `SINKS`.
    name
        Name of the destination, for errors.
    url, secret, path, topic, rate_per_s
        As in `destinations:` of the settings; see `docs/sinks.md`.
    kafka_options
        librdkafka options of the `kafka:` section, with `bootstrap.servers`; other types ignore them.

    Raises
    ------
    BadSettings
        The type is unknown, or a setting is missing, wrong or means nothing to this type.
    """
    if type not in SINKS:
        raise BadSettings(f"destination `{name}`: unknown type `{type}`; known: {', '.join(SINKS)}")
    given = {"url": url, "secret": secret, "path": path, "topic": topic, "rate_per_s": rate_per_s}
    for key, value in given.items():
        if value is not None and key not in _TAKES[type]:
            takes = ", ".join(f"`{k}`" for k in given if k in _TAKES[type])
            raise BadSettings(f"{type} `{name}`: `{key}` means nothing here; it takes {takes}")
        if value == "":
            raise BadSettings(f"{type} `{name}`: `{key}` is empty")
    return SINKS[type](
        SinkOptions(
            name=name,
            url=None if url is None else as_secret(url),
            secret=None if secret is None else as_secret(secret),
            path=path,
            topic=topic,
            rate_per_s=rate_per_s,
            kafka_options=dict(kafka_options or {}),
        )
    )


def _needed(value: Secret | None, who: str, key: str) -> Secret:
    if value is None:
        raise BadSettings(f"{who}: needs `{key}` or `{key}_file`")
    return value
