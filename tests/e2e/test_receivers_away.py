"""Several receivers in trouble at once and a `kill -9` in the middle: nobody misses anything or waits for another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.e2e.live import Live, read_topic, wait_for
from tests.e2e.oncall import OWN, OnCall
from tests.servers.cache import free_port
from tests.sinks.receiver import Answer, Receiver, receiver

pytestmark = [pytest.mark.server, pytest.mark.slow]

PATIENCE_S = 300.0
"""A crowded machine reads forty minutes of events slowly; nobody waits for it otherwise."""
LIMITED = Answer(429, b"rate_limited", (("Retry-After", "3"),))


def hooks(it: Receiver) -> dict[str, list[dict[str, Any]]]:
    """Incidents that a webhook took, in order, each `webhook-id` once."""
    out: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for request in it.requests:
        incident = json.loads(request.body)
        if incident["kind"] != OWN:
            out[incident["incident_id"]].setdefault(request.headers["webhook-id"], incident)
    return {incident_id: list(revisions.values()) for incident_id, revisions in out.items()}


def pages(it: Receiver) -> Counter[tuple[str, str]]:
    """What PagerDuty heard, by dedup key and action."""
    events = [json.loads(r.body) for r in it.requests]
    return Counter((e["dedup_key"], e["event_action"]) for e in events if OWN not in e["dedup_key"])


def given_up(it: Live, *arguments: str) -> list[dict[str, Any]]:
    """Run `tidegauge outbox`."""
    done = subprocess.run(
        [sys.executable, "-m", "flows", "outbox", *arguments, "--config", str(it.config)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_receivers_in_trouble_delay_nobody_and_miss_nothing_in_the_end(
    live: Callable[..., Live], on_call: OnCall, kafka_broker: str, tmp_path: Path
) -> None:
    key = tmp_path / "routing-key"
    key.write_text("k" * 32)
    with ExitStack() as stack:
        pager = stack.enter_context(receiver(Answer(202)))
        hanging = stack.enter_context(receiver(Answer(hold=True)))
        limited = stack.enter_context(receiver(LIMITED))
        gone = stack.enter_context(receiver(Answer(410, b"gone")))
        closed = free_port()
        it = live(
            "receivers",
            receivers=[
                {"name": "pager", "type": "pagerduty", "secret_file": str(key), "url": pager.url, "rate_per_s": 100.0},
                {"name": "hanging", "type": "webhook", "url": hanging.url},
                {"name": "closed", "type": "webhook", "url": f"http://127.0.0.1:{closed}/hook"},
                {"name": "limited", "type": "slack", "url": limited.url, "rate_per_s": 100.0},
                {"name": "gone", "type": "webhook", "url": gone.url},
            ],
        )
        it.start()
        wait_for("the first alerts", lambda: len(on_call.received()) >= 2 and pages(pager))
        it.kill()
        it.start()
        wait_for("the last window", it.has_closed_everything, timeout_s=PATIENCE_S)
        rows = it.query(
            f"SELECT incident_id, state FROM incidents FINAL WHERE kind != '{OWN}' AND notify"
            " ORDER BY incident_id, revision"
        )
        opened, ended = ({i for i, state in rows if state == s} for s in ("open", "resolved"))
        assert len(ended) >= 4
        expected = {(i, "open") for i in opened} | {(i, "resolved") for i in ended}

        # Healthy receivers have everything, while the others have nothing.
        wait_for("all at the webhook", lambda: set(on_call.received()) >= expected)
        wait_for("all at the pager", lambda: {k for k, a in pages(pager) if a == "resolve"} >= ended)
        assert it.is_ready(), "a receiver's trouble is not the flow's"
        ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        for _, webhook_id, incident in on_call.incidents:
            if incident["state"] != "updated":
                ids[(incident["incident_id"], incident["state"])].add(webhook_id)
        assert {len(same) for same in ids.values()} == {1}, "once per dedup key"
        repeated = sum(n - 1 for (_, state), n in on_call.received().items() if state != "updated")
        assert repeated <= 1, "only what was under way at the kill may come twice"
        assert {k for k, a in pages(pager) if a == "trigger"} >= opened
        sent = read_topic(kafka_broker, it.incidents_topic)
        assert {(i["incident_id"], i["state"]) for _, i in sent} >= expected
        assert it.metric("tidegauge_outbox_waiting") >= len(opened)
        assert it.metric("tidegauge_outbox_given_up") > 0

        # Everybody comes back.
        it.stop()
        assert {x["destination"] for x in given_up(it, "list") if x["delivery"] == "dead"} == {"gone"}
        assert given_up(it, "retry", "--destination", "gone")[0]["revived"] >= len(opened)
        for back in (hanging, limited, gone):
            back.default = Answer(200)
            back.requests.clear()
        reopened = stack.enter_context(receiver(Answer(200), port=closed))
        it.start()
        wait_for("an empty outbox", lambda: it.is_ready() and it.metric("tidegauge_outbox_waiting") == 0)
        assert it.metric("tidegauge_outbox_given_up") == 0
        for back in (hanging, reopened, gone):
            told = hooks(back)
            assert set(told) == opened
            for incident_id, revisions in told.items():
                assert [r["revision"] for r in revisions] == sorted(r["revision"] for r in revisions)
                assert (revisions[-1]["state"] == "resolved") == (incident_id in ended)
        assert 1 <= len(limited.requests) <= len(opened) + 1, "a handful of messages, no storm"
        it.stop()
