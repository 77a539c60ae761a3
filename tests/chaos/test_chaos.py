"""The short form of `make chaos`: whatever fails, nothing is lost or doubled, and on-call hears everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.form import SHORT, Servers
from tests.chaos.scenarios import SCENARIOS

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_lost_and_nothing_doubled(
    name: str, tmp_path: Path, kafka_broker: str, clickhouse_server: str
) -> None:
    rows = list(SCENARIOS[name](Servers(kafka_broker, clickhouse_server, tmp_path), SHORT))
    assert rows
    for row in rows:
        assert row.events_in > 1_000, row
        assert row.alerts_in > 3, row
        bad = (row.lost, row.doubled, row.uncounted, row.alerts_lost, row.alerts_doubled)
        assert bad == (0, 0, 0, 0, 0), row
        assert row.peak_memory_mb < 1_500, row
