"""Tidegauge's own metrics, in Prometheus' exposition. Counted from what passes the outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.steps import Closed, Priced, PricedGpus
from schemas.columns import TOO_LATE
from schemas.dead_letter import DeadLetter
from schemas.findings import Progress
from schemas.incident import Incident

Status = Callable[[], Mapping[str, Any]]


class FlowMetrics:
    """Counters and gauges of one process.

    Parameters
    ----------
    registry
        Where they are registered.
    clock
        Seconds since the epoch, for delays against event time.
    """

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._open: dict[str, set[str]] = {}

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"tidegauge_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"tidegauge_{name}", text, labels, registry=registry)

        self.events = counter("events", "Usable events read.", ["stream"])
        self.blocks = counter("blocks", "Blocks read.", ["stream"])
        self.dead_letters = counter("dead_letters", "Unusable messages, by reason.", ["reason"])
        self.late = counter(
            "late_events", "Events after their window's close, by whether they still counted.", ["kept"]
        )
        self.dropped = counter("dropped_events", "Requests missing in windows because their partition had been idle.")
        self.unknown_fields = counter("unknown_fields", "Messages seen with fields that no schema knows.")
        self.lag = gauge("lag_messages", "Messages that wait in the partition.", ["partition"])
        self.watermark = gauge("watermark_seconds", "Event time up to which windows are closed.", ["stream"])
        self.delay = gauge("watermark_delay_seconds", "How far that is behind the clock.", ["stream"])
        self.window_rows = counter("window_rows", "Rows of closed windows.", ["stream"])
        self.series = gauge("series", "Series watched, by shard.", ["shard"])
        self.evicted = gauge("series_evicted", "Series forgotten since the first start, by shard.", ["shard"])
        self.unwatched = gauge("series_unwatched", "Series turned away because there are too many.", ["shard"])
        self.folded = counter("folded_values", "Events whose rare dimension value reads `other`.", ["dimension"])
        self.folded_rows = counter(
            "folded_window_rows", "Window rows folded into `other`, and GPUs left out, beyond max_series.", ["stream"]
        )
        self.scores = counter("scores", "Judgements made.", ["detector"])
        self.incidents = counter("incidents", "Incident revisions.", ["kind", "state"])
        self.open_incidents = gauge("open_incidents", "Incidents open now.", ["kind"])

    def on_requests(self, values: Sequence[Priced]) -> None:
        """Count blocks of requests."""
        for priced in values:
            batch = priced.item.batch
            if batch is None:
                continue
            self._block("requests", priced.item.partition, priced.item.lag, len(batch.columns), batch.columns.lateness)
            for dimension, n in batch.other.items():
                self.folded.labels(dimension).inc(n)
            if batch.unknown_fields:
                self.unknown_fields.inc(sum(batch.unknown_fields.values()))

    def on_gpus(self, values: Sequence[PricedGpus]) -> None:
        """Count blocks of GPU samples."""
        for priced in values:
            if priced.columns is not None:
                c = priced.columns
                self._block("gpus", priced.item.partition, priced.item.lag, len(c), c.lateness)

    def on_closed(self, values: Sequence[Closed]) -> None:
        """Count window rows and follow the watermark."""
        for closed in values:
            stream = "gpus" if closed.gpus or closed.shard == "gpus" else "requests"
            if closed.dropped:
                self.dropped.inc(closed.dropped)
            if closed.folded:
                self.folded_rows.labels(stream).inc(closed.folded)
            rows = sum(len(w) for w in closed.requests) + sum(len(w) for w in closed.gpus)
            if rows:
                self.window_rows.labels(stream).inc(rows)
            if 0 < closed.watermark_ns < 2**61:
                self.watermark.labels(stream).set(closed.watermark_ns / 1e9)
                self.delay.labels(stream).set(self.clock() - closed.watermark_ns / 1e9)

    def on_progress(self, values: Sequence[Progress]) -> None:
        """Count judgements."""
        for progress in values:
            self.evicted.labels(progress.shard).set(progress.evicted)
            self.unwatched.labels(progress.shard).set(progress.unwatched)
            for report in progress.reports:
                self.series.labels(progress.shard).set(len(report.series))
                for f in report.findings:
                    self.scores.labels(f.detector).inc(len(f.score))

    def on_incidents(self, values: Sequence[Incident]) -> None:
        """Count revisions and follow what is open."""
        for incident in values:
            self.incidents.labels(incident.kind, incident.state).inc()
        self.on_restored(values)

    def on_restored(self, incidents: Sequence[Incident]) -> None:
        """Follow what is open; also told what was open when the state was saved."""
        for incident in incidents:
            known = self._open.setdefault(incident.kind, set())
            (known.discard if incident.state == "resolved" else known.add)(incident.incident_id)
            self.open_incidents.labels(incident.kind).set(len(known))

    def on_dead(self, values: Sequence[DeadLetter]) -> None:
        """Count dead letters."""
        for letter in values:
            self.dead_letters.labels(letter.reason.value).inc()

    def _block(self, stream: str, partition: str, lag: int | None, n: int, lateness: Any) -> None:
        self.events.labels(stream).inc(n)
        self.blocks.labels(stream).inc()
        if lag is not None:
            self.lag.labels(partition).set(lag)
        too_late = int(np.count_nonzero(lateness == TOO_LATE))
        late = int(np.count_nonzero(lateness)) - too_late
        if late:
            self.late.labels("yes").inc(late)
        if too_late:
            self.late.labels("no").inc(too_late)


class DeliveryMetrics(Collector):
    """Metrics of the database writer and of the outbox, read when they are asked for.

    Parameters
    ----------
    writer, notifier
        Their `status` functions, or None where there is none.
    """

    def __init__(self, writer: Status | None, notifier: Status | None) -> None:
        self.writer, self.notifier = writer, notifier

    def collect(self) -> list[Metric]:
        """Current values."""
        out: list[Metric] = []
        if self.writer is not None:
            status = self.writer()
            for key, text in (
                ("queued_rows", "Rows that wait for the database, in memory and on disk."),
                ("queued_bytes", "Bytes of memory that they use."),
                ("spooled_bytes", "Bytes of rows that wait on disk."),
                ("blocked", "1 while the flow waits because there is no room for rows."),
            ):
                out.append(GaugeMetricFamily(f"tidegauge_clickhouse_{key}", text, value=float(status.get(key, 0))))
            rows = CounterMetricFamily("tidegauge_clickhouse_rows", "Rows inserted.", labels=["table"])
            for table, n in sorted(dict(status.get("inserted_rows", {})).items()):
                rows.add_metric([table], float(n))
            out.append(rows)
            failures = status.get("failures", 0)
            out.append(CounterMetricFamily("tidegauge_clickhouse_failures", "Failed inserts.", value=float(failures)))
        if self.notifier is not None:
            deliveries = CounterMetricFamily(
                "tidegauge_deliveries", "Incident revisions by receiver and result.", labels=["sink", "result"]
            )
            waiting = GaugeMetricFamily(
                "tidegauge_outbox_waiting", "Revisions that wait to be delivered.", labels=["sink"]
            )
            given_up = GaugeMetricFamily(
                "tidegauge_outbox_given_up", "Revisions that were given up and are kept.", labels=["sink"]
            )
            oldest = GaugeMetricFamily(
                "tidegauge_outbox_oldest_seconds", "Age of the oldest revision that waits.", labels=["sink"]
            )
            for sink, state in sorted(self.notifier().items()):
                for result in ("sent", "retried", "superseded", "dead"):
                    if result in state:
                        deliveries.add_metric([sink, result], float(state[result]))
                waiting.add_metric([sink], float(state.get("waiting", 0)))
                given_up.add_metric([sink], float(state.get("dead_kept", 0)))
                oldest.add_metric([sink], float(state.get("oldest_waiting_s", 0)))
            out += [deliveries, waiting, given_up, oldest]
        return out
