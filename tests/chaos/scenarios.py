"""Every scenario, by the name that it is asked for."""

from __future__ import annotations

from tests.chaos import clickhouse_away, crash, kafka_away, overload, receivers_away
from tests.chaos.form import Scenario

SCENARIOS: dict[str, Scenario] = {
    "crash": crash.scenario,
    "clickhouse": clickhouse_away.scenario,
    "receivers": receivers_away.scenario,
    "kafka": kafka_away.scenario,
    "overload": overload.scenario,
}
"""In the order in which `make chaos` runs them."""
