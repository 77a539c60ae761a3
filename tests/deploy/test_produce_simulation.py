from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from confluent_kafka import Producer

from flows.simulate import simulate
from schemas.errors import BadSettings

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "produce_simulation.py"
START = datetime(2026, 6, 1, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("produce_simulation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def wait(self, seconds: float) -> None:
        assert 0 <= seconds <= 1
        self.at += seconds


def run(script: ModuleType, clock: Clock) -> list[tuple[str, bytes, int, float]]:
    sent: list[tuple[str, bytes, int, float]] = []
    script.pace(
        simulate(minutes=2, seed=3, rate=5.0, start=START),
        lambda topic, key, message, at_ms: sent.append((topic, message, at_ms, clock())),
        requests_topic="r",
        gpus_topic="g",
        clock=clock,
        wait=clock.wait,
    )
    return sent


def test_no_event_is_sent_before_its_time(script: ModuleType) -> None:
    sent = run(script, Clock(START.timestamp()))
    assert {topic for topic, *_ in sent} == {"r", "g"}
    assert all(when >= at_ms / 1_000 for _, _, at_ms, when in sent)
    assert max(when - at_ms / 1_000 for _, _, at_ms, when in sent) < 2


def test_the_past_is_sent_at_once_and_completely(script: ModuleType) -> None:
    clock = Clock(START.timestamp() + 3_600)
    sent = run(script, clock)
    assert clock() == START.timestamp() + 3_600
    minutes = list(simulate(minutes=2, seed=3, rate=5.0, start=START))
    assert sorted(m for topic, m, *_ in sent if topic == "r") == sorted(r for m in minutes for r in m.requests)
    assert sum(topic == "g" for topic, *_ in sent) == sum(len(m.gpus) for m in minutes)


def test_arguments_in_the_compose_file_are_known(script: ModuleType) -> None:
    import yaml

    compose = yaml.safe_load((SCRIPT.parents[1] / "docker-compose.yml").read_text(encoding="utf-8"))
    chosen = script.arguments(compose["services"]["simulator"]["command"])
    assert chosen.bootstrap == "kafka:19092"
    assert chosen.history_minutes >= 60


def test_the_past_is_left_out_where_the_topic_holds_messages(script: ModuleType) -> None:
    owner = Producer({"bootstrap.servers": "embedded", "test.mock.num.brokers": 1})
    broker = next(iter(owner.list_topics(timeout=10).brokers.values()))
    address = f"{broker.host}:{broker.port}"
    owner.list_topics("ai.requests", timeout=10)
    command = ["--bootstrap", address, "--minutes", "0", "--history-minutes", "1", "--rate", "2", "--incidents", "none"]
    assert not script.holds_messages(address, "ai.requests")
    assert script.main(command) == 0
    assert script.holds_messages(address, "ai.requests")
    with pytest.raises(BadSettings):
        script.main(command)  # no past and no future: nothing to simulate
