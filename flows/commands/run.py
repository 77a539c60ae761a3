"""`tidegauge run`: production. Kafka in; ClickHouse, on-call and Kafka out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import structlog
from cyclopts import Parameter

from flows.dead_letter_topic import DeadLetterTopic
from flows.kafka_metrics import KafkaMetrics
from flows.lock import hold
from flows.outputs import Outputs
from flows.recovery_store import saved_keys
from flows.runtime import Runtime, execute, kafka_options
from flows.settings_file import load
from flows.sources.alignment import Alignment
from flows.sources.kafka import KafkaSource
from flows.sources.kafka_topics import Brokers, Topic, TopicWatch
from flows.stop import on_signal
from schemas.errors import BadSettings, TidegaugeError
from schemas.formats import get_format

DRAIN_S = 2.0
"""How long a stop waits for the database, and for the destinations; what they have not taken is on disk."""


def run(
    *,
    config: Annotated[str | None, Parameter(name=["--config", "-c"])] = None,
    workers: int = 1,
    process: int | None = None,
    address: Annotated[tuple[str, ...], Parameter(negative=())] = (),
) -> int:
    """Consume Kafka and watch, until stopped. State is kept, so a restart goes on where it was.

    SIGTERM and Ctrl-C save what was read and end within 10 s.

    Example: tidegauge run --config tidegauge.yaml

    Parameters
    ----------
    config
        Settings file.
    workers
        Worker threads of this process; more processes scale better than more threads.
    process
        Number of this process in a cluster, from 0.
    address
        `host:port` of every process of the cluster, in order; repeat the option.
    """
    settings = load(config)
    log = structlog.get_logger()
    with (
        on_signal() as stop,
        hold(settings.state_dir, process or 0),
        Runtime(settings, notify=True, topic=True, process=process or 0, drain_s=DRAIN_S) as runtime,
    ):
        options = kafka_options(settings)
        brokers = Brokers(options)
        topics = [brokers.topic(name) for name in (settings.kafka.requests_topic, settings.kafka.gpus_topic)]
        dead_letters = DeadLetterTopic(settings.kafka.dead_letters_topic, options)
        outputs = runtime.outputs()
        outputs.dead.append(dead_letters.put)
        save_rows = outputs.checkpoint

        def checkpoint() -> None:
            save_rows()
            dead_letters.checkpoint()

        outputs.checkpoint = checkpoint
        try:
            metrics = KafkaMetrics(dead_letters, lambda name, n: runtime.metrics.lag.labels(name).set(n))
            runtime.registry.register(metrics)
            outputs.pressure = lambda: {**runtime.pressure(), "unread_partitions": metrics.unread()}
            runtime.waits_for += [lambda: "stopping" if stop.is_set() else "", lambda: _missing(metrics)]
            health = runtime.serve()
            log.info(
                "watching",
                requests=settings.kafka.requests_topic,
                gpus=settings.kafka.gpus_topic,
                metrics=f"http://{settings.metrics.host}:{health.port}/metrics" if health else None,
            )
            while True:
                with TopicWatch(
                    brokers, topics, every_s=settings.kafka.topic_check_s, on_ends=metrics.on_ends
                ) as watch:
                    # A cluster would have to stop all at once: it goes on, and says what it does not read.
                    over = stop.is_set if address else (lambda: stop.is_set() or watch.changed.is_set())
                    metrics.sources = _sources(runtime, topics, options, over, watch)
                    metrics.watch = watch
                    _execute(runtime, metrics.sources, outputs, stop, workers, process, address)
                if stop.is_set() or not watch.changed.is_set():
                    break
                topics = [watch.found[topic.name] for topic in topics]
                log.warning("going on with the topics as they are now", **{t.name: len(t.partitions) for t in topics})
        finally:
            dead_letters.close()
        log.info("stopped")
    return 0


def _missing(metrics: KafkaMetrics) -> str:
    """What keeps Kafka from being read to its end; empty for nothing."""
    asked = [source.missing for source in metrics.sources]
    if metrics.watch is not None:
        asked.insert(0, metrics.watch.missing)
    return next((what for missing in asked if (what := missing())), "" if asked else "no topic has been read yet")


def _sources(
    runtime: Runtime,
    topics: Sequence[Topic],
    options: Mapping[str, Any],
    stopping: Callable[[], bool],
    watch: TopicWatch,
) -> list[KafkaSource]:
    k, recovery = runtime.settings.kafka, runtime.state_dir / "recovery"

    def identify(name: str) -> str:
        """Asked by a worker whose position is gone: the watch may not know yet."""
        brokers = Brokers(options)
        try:
            return brokers.topic(name, timeout_s=2.0).identity
        except BadSettings:
            return ""
        finally:
            brokers.close()

    align = Alignment()
    return [
        KafkaSource(
            topic,
            format=get_format(format_name),
            options=options,
            make=runtime.parts.partition,
            start=k.start,
            out_of_range=k.out_of_range,
            known=saved_keys(recovery, step),
            identify=partial(identify, topic.name),
            held=partial(watch.is_gone, topic.name),
            block_messages=k.block_messages,
            idle_timeout_s=runtime.settings.windows.idle_timeout_s,
            align=align,
            stopping=stopping,
        )
        for topic, format_name, step in zip(
            topics, (k.requests_format, k.gpus_format), ("requests", "gpus"), strict=True
        )
    ]


def _execute(
    runtime: Runtime,
    sources: Sequence[KafkaSource],
    outputs: Outputs,
    stop: threading.Event,
    workers: int,
    process: int | None,
    address: tuple[str, ...],
) -> None:
    requests, gpus = sources
    try:
        execute(runtime, requests, gpus, outputs, workers=workers, recover=True, process=process, addresses=address)
    except BaseException as problem:
        if address and type(problem).__name__ == "PanicException":  # the engine's word for a lost connection
            if not stop.is_set():
                raise TidegaugeError(
                    "run: another process of the cluster has ended, so this one ends, too. Start all of them again: "
                    "they go on where the cluster was."
                ) from problem
            return
        inner: BaseException | None = problem  # the engine wraps what our own parts raise
        while inner is not None and not isinstance(inner, TidegaugeError):
            inner = inner.__cause__
        raise (inner or problem) from problem
