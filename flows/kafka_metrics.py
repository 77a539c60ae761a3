"""What `/metrics` says of Kafka, read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.dead_letter_topic import DeadLetterTopic
from flows.sources.kafka import KafkaSource
from flows.sources.kafka_topics import Topic, TopicWatch


@dataclass(eq=False)
class KafkaMetrics(Collector):
    """Metrics of what is read now.

    Parameters
    ----------
    dead_letters
        The topic of the dead letters.
    set_lag
        Takes a partition's name and the messages that wait in it.
    sources, watch
        Of the flow that runs now; they change when partitions do.
    """

    dead_letters: DeadLetterTopic
    set_lag: Callable[[str, int], None]
    sources: Sequence[KafkaSource] = ()
    watch: TopicWatch | None = field(default=None)

    def on_ends(self, topic: Topic, ends: Mapping[int, int]) -> None:
        """Partitions reach so far: what was not read of them waits, even while the flow stands still."""
        for source in self.sources:
            for name, part in list(source.parts.items()):
                if source.topic == topic.name and part.number in ends and part.offset >= 0:
                    self.set_lag(name, max(ends[part.number] - part.offset, 0))

    def collect(self) -> list[Metric]:
        """Current values."""
        lost = CounterMetricFamily(
            "tidegauge_lost_messages",
            "Messages gone before they were read, since the first start.",
            labels=["partition"],
        )
        for source in self.sources:
            for name, part in sorted(source.parts.copy().items()):
                lost.add_metric([name], float(part.lost))
        unread = GaugeMetricFamily(
            "tidegauge_unread_partitions", "Partitions that exist and are not read.", labels=["topic"]
        )
        if self.watch is not None:
            for topic, n in sorted(self.watch.unread().items()):
                unread.add_metric([topic], float(n))
        sent = CounterMetricFamily(
            "tidegauge_dead_letter_topic", "Dead letters by what became of them in Kafka.", labels=["result"]
        )
        sent.add_metric(["sent"], float(self.dead_letters.sent))
        sent.add_metric(["failed"], float(self.dead_letters.failed))
        waiting = GaugeMetricFamily(
            "tidegauge_dead_letter_topic_waiting",
            "Dead letters that the broker has not acknowledged.",
            value=float(self.dead_letters.waiting),
        )
        return [lost, unread, sent, waiting]
