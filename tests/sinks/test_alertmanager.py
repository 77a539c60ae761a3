from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import urllib3
from hypothesis import given, settings

from schemas.incident import Incident
from sinks.alertmanager import Alertmanager, alert, labels
from sinks.courier import Courier
from sinks.outbox import Outbox
from tests.servers.alertmanager import AlertmanagerServer
from tests.servers.cache import free_port
from tests.sinks.incidents import hostile, incident
from tests.sinks.receiver import receiver
from tests.sinks.scripted import Clock, run


def test_labels_are_the_same_for_every_revision() -> None:
    first = labels(incident(1, 1, severity="warning"))
    last = labels(incident(1, 9, "resolved", severity="critical", observed=1.0, summary="other", cause=None))
    assert (
        first
        == last
        == {
            "alertname": "TidegaugeCostSpike",
            "kind": "cost_spike",
            "model": "gpt-x_1",
            "provider": "openai",
            "team": "search",
        }
    )


def test_severity_is_a_label_only_if_asked_for() -> None:
    assert labels(incident(), severity_label=True)["severity"] == "error"
    assert alert(incident())["annotations"]["severity"] == "error"


def test_dimensions_never_take_the_place_of_our_labels_or_of_each_other() -> None:
    dims = {
        "alertname": "a",
        "kind": "b",
        "severity": "c",
        "a-b": "1",
        "a_b": "2",
        "a.b": "3",
        "9x": "4",
        "__x": "5",
        "": "6",
    }
    built = labels(incident(dims=dims))
    assert built["alertname"] == "TidegaugeCostSpike"
    assert built["kind"] == "cost_spike"
    assert sorted(built.values())[:6] == ["1", "2", "3", "4", "5", "6"]
    assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) for name in built)


@settings(max_examples=80, deadline=None)
@given(hostile())
def test_hostile_incidents_give_valid_alerts(it: Incident) -> None:
    built = orjson.loads(orjson.dumps(alert(it)))
    assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) for name in [*built["labels"], *built["annotations"]])
    assert all(v for v in built["labels"].values())
    assert len(built["labels"]) == 2 + sum(bool(v) for v in labels(it).values()) - 2
    assert not re.search(r"[\x00-\x1f\u202e]", "".join([*built["labels"].values(), *built["annotations"].values()]))


def test_only_resolved_alerts_have_an_end() -> None:
    assert "endsAt" not in alert(incident())
    assert alert(incident(state="resolved"))["endsAt"] == "2026-03-01T11:30:00Z"


@pytest.mark.parametrize("suffix", ["", "/", "/api/v2", "/api/v2/alerts"])
def test_base_address_is_enough(suffix: str) -> None:
    with receiver() as it:
        Alertmanager("am", it.url + "/prefix" + suffix).write([incident(1), incident(2)])
        assert [r.path for r in it.requests] == ["/prefix/api/v2/alerts"]
        assert len(orjson.loads(it.requests[0].body)) == 2


def test_login_of_the_address_and_token_go_into_the_header() -> None:
    with receiver() as it:
        Alertmanager("am", it.url.replace("//", "//user:pa%40ss@")).write([incident()])
        Alertmanager("am", it.url, token="t0ken").write([incident()])
        assert [r.headers["authorization"] for r in it.requests] == ["Basic dXNlcjpwYUBzcw==", "Bearer t0ken"]


def read_back(url: str, team: str | None = None) -> list[dict[str, Any]]:
    with urllib3.PoolManager() as http:
        alerts: list[dict[str, Any]] = http.request("GET", f"{url}/api/v2/alerts").json()
        return [a for a in alerts if team in (None, a["labels"].get("team"))]


@pytest.mark.server
def test_real_alertmanager_shows_what_is_open_and_forgets_what_is_resolved(alertmanager: str) -> None:
    sink = Alertmanager("am", alertmanager)
    now = datetime.fromtimestamp(time.time(), UTC)
    opened, ended = f"{now - timedelta(hours=1):%FT%TZ}", f"{now - timedelta(seconds=5):%FT%TZ}"
    team = {"team": "read-back", "gpu.model": 'H100 "x" \n{}'}
    sink.write([incident(1, dims=team, opened_at=opened), incident(2, kind="gpu_idle", dims=team, opened_at=opened)])
    sink.write([incident(1, 2, "updated", dims=team, opened_at=opened, severity="critical")])
    shown = {a["labels"]["alertname"]: a for a in read_back(alertmanager, "read-back")}
    assert shown.keys() == {"TidegaugeCostSpike", "TidegaugeGpuIdle"}
    spike = shown["TidegaugeCostSpike"]
    assert spike["status"]["state"] == "active"
    assert spike["labels"]["gpu_model"] == 'H100 "x" {}'
    assert spike["annotations"]["severity"] == "critical"
    assert spike["annotations"]["revision"] == "2"
    assert spike["generatorURL"].startswith("https://grafana.example/")
    sink.write([incident(1, 3, "resolved", dims=team, opened_at=opened, resolved_at=ended)])
    assert [a["labels"]["alertname"] for a in read_back(alertmanager, "read-back")] == ["TidegaugeGpuIdle"]
    sink.close()


@pytest.mark.server
def test_real_alertmanager_that_was_away_and_lost_its_memory_is_told_again_what_is_open(tmp_path: Path) -> None:
    server = AlertmanagerServer(tmp_path / "alertmanager", free_port())
    server.start()
    clock, sink = Clock(time.time()), Alertmanager("am", server.url, connect_s=1.0, read_s=5.0)
    outbox = Outbox(tmp_path / "outbox.db")
    courier = Courier("am", sink, outbox, clock=clock, jitter=lambda: 0.5, traits=sink.traits)
    opened = f"{datetime.fromtimestamp(clock.now, UTC) - timedelta(minutes=10):%FT%TZ}"
    ended = f"{datetime.fromtimestamp(clock.now, UTC) - timedelta(seconds=5):%FT%TZ}"

    def accept(number: int, revision: int = 1, state: str = "open") -> None:
        changes = {"resolved_at": ended} if state == "resolved" else {}
        it = incident(number, revision, state, dims={"team": f"t{number}"}, opened_at=opened, **changes)
        outbox.accept([("am", it)], clock())

    def teams() -> set[str]:
        return {a["labels"]["team"] for a in read_back(server.url)}

    try:
        for number in (1, 2, 3):
            accept(number)
        run(courier, clock, 30)
        assert teams() == {"t1", "t2", "t3"}
        server.kill()
        # While it is away one ends, one more opens, and one comes and goes.
        accept(1, 2, "resolved")
        accept(4)
        accept(5)
        accept(5, 2, "resolved")
        run(courier, clock, 300)
        assert courier.counters["retried"] >= 3
        assert courier.counters["dead"] == 0
        server.forget()
        server.start()
        assert teams() == set()
        run(courier, clock, 130)
        assert teams() == {"t2", "t3", "t4"}
        assert outbox.idle(["am"])
        assert courier.counters["unneeded"] == 1
    finally:
        server.kill()
        sink.close()
        outbox.close()


@pytest.mark.server
def test_real_alertmanager_takes_hostile_incidents(alertmanager: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(hostile())
    def posted(it: Incident) -> None:
        sink.write(
            [Incident(**{f: getattr(it, f) for f in it.__struct_fields__} | {"opened_at": "2026-03-01T10:20:00Z"})]
        )

    sink = Alertmanager("am", alertmanager)
    posted()
    sink.close()
