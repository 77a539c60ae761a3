"""Receivers that hang, refuse and limit: the others hear everything as soon as ever, and those hear it afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

from tests.chaos.form import Form, Servers
from tests.chaos.report import Row
from tests.chaos.stage import Stage
from tests.e2e.live import wait_for
from tests.e2e.oncall import OWN
from tests.servers.proxy import FaultProxy
from tests.sinks.receiver import Answer, Receiver, receiver

LIMITED = Answer(429, b"rate_limited", (("Retry-After", "5"),))
DOWN = Answer(503, b"maintenance")
KILL_FROM_S = 30.0
"""From so long a trouble on there is a second run, with a `kill -9` in the middle."""


def scenario(servers: Servers, form: Form) -> Iterator[Row]:
    """Four of five receivers in trouble at once; in the long form once more with a `kill -9` in the middle."""
    yield _away(servers, form, kill=False)
    if form.during_s >= KILL_FROM_S:
        yield _away(servers, form, kill=True)


def _away(servers: Servers, form: Form, *, kill: bool) -> Row:
    with ExitStack() as stack:
        hooks = {name: stack.enter_context(receiver(Answer(200))) for name in ("hanging", "refusing", "down")}
        slack = stack.enter_context(receiver(Answer(200)))
        proxies = {
            name: stack.enter_context(FaultProxy(("127.0.0.1", int(hooks[name].url.rpartition(":")[2]))))
            for name in ("hanging", "refusing")
        }
        urls = {**{name: proxy.url for name, proxy in proxies.items()}, "down": hooks["down"].url}
        stage = stack.enter_context(
            Stage(
                servers.folder / ("receivers-killed" if kill else "receivers"),
                kafka=servers.kafka,
                clickhouse=servers.clickhouse,
                rate_per_s=form.rate_per_s,
                receivers=[
                    *({"name": name, "type": "webhook", "url": url} for name, url in urls.items()),
                    {"name": "limited", "type": "slack", "url": slack.url},
                ],
            )
        )
        stage.watched = ("tidegauge_outbox_waiting", "tidegauge_outbox_given_up")
        stage.phase("before", form.before_s)
        proxies["hanging"].half_open()
        proxies["refusing"].refuse()
        hooks["down"].default, slack.default = DOWN, LIMITED
        stage.phase("during", form.during_s / 2)
        if kill:
            stage.live.kill()
            stage.live.start()
            wait_for("readiness after the kill", stage.live.is_ready)
        stage.phase("during", form.during_s / 2)
        waiting = stage.live.metric("tidegauge_outbox_waiting")
        for proxy in proxies.values():
            proxy.heal()
        hooks["down"].default = slack.default = Answer(200)
        limited = len(slack.requests)
        begun = time.monotonic()
        stage.phase("after", form.after_s)
        wait_for("an empty outbox", lambda: stage.live.metric("tidegauge_outbox_waiting") <= 1)
        told_s = time.monotonic() - begun
        stage.finish()
        expected = {i["incident_id"] for _, _, i in stage.on_call.incidents if i["kind"] != OWN}
        missing = {name: len(expected - _resolved(it)) for name, it in hooks.items()}
        given_up = stage.seen["tidegauge_outbox_given_up"]
        return stage.row(
            "receivers hanging, refusing, answering 503 and 429 at once" + (", and a kill -9" if kill else ""),
            f"ends of incidents never told, by receiver: {missing}; {waiting:.0f} revisions waited at the end of the "
            f"trouble, told within {told_s:.0f} s; given up {given_up:.0f}; messages to the "
            f"limited one afterwards: {len(slack.requests) - limited}",
        )


def _resolved(it: Receiver) -> set[str]:
    """Incidents whose end a webhook heard."""
    heard = [json.loads(request.body) for request in it.requests]
    return {i["incident_id"] for i in heard if i["state"] == "resolved"}
