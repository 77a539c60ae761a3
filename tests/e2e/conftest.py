"""One company whose events lie in a real Kafka, and what an undisturbed run makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.company import END_AFTER_S, Company
from tests.e2e.live import Live, wait_for
from tests.e2e.oncall import OnCall

GROUPINGS = ("", "team", "provider,model")


@pytest.fixture(scope="module")
def company(kafka_broker: str) -> Company:
    """Its topics are made and filled."""
    it = Company()
    it.create(kafka_broker)
    it.send(kafka_broker)
    return it


@pytest.fixture
def on_call() -> Iterator[OnCall]:
    """Who is woken up."""
    with OnCall() as it:
        yield it


@pytest.fixture
def live(
    tmp_path: Path, company: Company, kafka_broker: str, clickhouse_server: str, on_call: OnCall
) -> Iterator[Callable[..., Live]]:
    """Make installations over the company's topics; they are ended and dropped after the test."""
    made: list[Live] = []

    def make(name: str = "one", **settings: Any) -> Live:
        it = Live(tmp_path / name, company, kafka_broker, clickhouse_server, on_call.url, **settings)
        made.append(it)
        return it

    yield make
    for it in made:
        it.kill()
        it.drop()


class Undisturbed:
    """What one process made of the company without any trouble."""

    def __init__(self, it: Live, company: Company, on_call: OnCall) -> None:
        it.start()
        wait_for("readiness", it.is_ready)
        wait_for("the last window", it.has_closed_everything)
        self.metrics = it.get("/metrics")[1]
        self.stop_s = it.stop()
        self.tables = it.tables()
        (raw,) = it.query(
            "SELECT count(), sum(input_tokens), sum(output_tokens), sum(cost_usd), countIf(failed) FROM requests_final"
            " WHERE lateness != 'too_late' AND toUnixTimestamp(at) <= {last:UInt32}",
            last=company.end_s + END_AFTER_S,
        )
        self.sums = {"raw": raw}
        for grouping in GROUPINGS:
            (self.sums[grouping],) = it.query(
                "SELECT sum(requests), sum(input_tokens), sum(output_tokens), sum(cost_usd), sum(errors)"
                " FROM request_windows_final WHERE grouping = {grouping:String}",
                grouping=grouping,
            )
        self.received = on_call.received()
        self.incidents_topic, self.dead_topic = it.incidents_topic, it.dead_topic


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, company: Company, kafka_broker: str, clickhouse_server: str
) -> Undisturbed:
    """One run over the company's topics."""
    with OnCall() as on_call:
        it = Live(tmp_path_factory.mktemp("e2e") / "undisturbed", company, kafka_broker, clickhouse_server, on_call.url)
        try:
            return Undisturbed(it, company, on_call)
        finally:
            it.kill()
            it.drop()
