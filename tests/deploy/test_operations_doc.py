from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry

from flows.kafka_metrics import KafkaMetrics
from flows.metrics import DeliveryMetrics, FlowMetrics

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def exposed() -> dict[str, set[str]]:
    """Every metric of a process under the name that a scrape shows, with its labels."""
    registry = CollectorRegistry()
    FlowMetrics(registry)
    registry.register(
        DeliveryMetrics(
            lambda: {"inserted_rows": {"requests": 1}}, lambda: {"slack": {"sent": 1, "dead": 0, "waiting": 0}}
        )
    )
    registry.register(
        KafkaMetrics(
            cast(Any, SimpleNamespace(sent=0, failed=0, waiting=0)),
            lambda partition, n: None,
            cast(Any, [SimpleNamespace(parts={"t/0": SimpleNamespace(lost=1)})]),
            cast(Any, SimpleNamespace(unread=lambda: {"t": 1})),
        )
    )
    labels = {c._name: set(c._labelnames) for c in registry._collector_to_names if hasattr(c, "_labelnames")}
    return {
        f"{m.name}_total" if m.type == "counter" else m.name: labels.get(
            m.name, {k for sample in m.samples for k in sample.labels}
        )
        for m in registry.collect()
    }


def documented() -> dict[str, set[str]]:
    rows = re.findall(r"^\| `(tidegauge_\w+)` \|([^|]*)\|", DOC, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_metric_is_documented_with_its_labels() -> None:
    assert documented() == exposed()


def test_every_setting_that_is_named_exists() -> None:
    from flows.settings import Settings

    settings = Settings()
    for section, key in re.findall(
        r"`(kafka|windows|clickhouse|incidents|metrics|pricing|detection)\.(\w+)`", DOC + _dashboards()
    ):
        assert hasattr(getattr(settings, section), key), f"{section}.{key}"


def test_every_endpoint_and_linked_page_exists() -> None:
    server = (ROOT / "flows" / "health.py").read_text(encoding="utf-8")
    for endpoint in ("/healthz", "/readyz", "/metrics"):
        assert f'"{endpoint}"' in server
        assert endpoint in DOC
    for link in re.findall(r"\]\((\w+\.md)\)", DOC + _dashboards()):
        assert (ROOT / "docs" / link).exists(), link
    for path in re.findall(r"`((?:deploy|sinks|tests|grafana)/[\w/.-]+)`", DOC):
        assert (ROOT / path).exists(), path


def _dashboards() -> str:
    return (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")
