"""`tidegauge run`: production. Kafka in; ClickHouse, on-call and Kafka out."""

from __future__ import annotations

from typing import Annotated

import structlog
from cyclopts import Parameter

from flows.dead_letter_topic import DeadLetterTopic
from flows.lock import hold
from flows.runtime import Runtime, execute, kafka_options
from flows.settings_file import load
from flows.sources.kafka import KafkaSource, list_partitions
from flows.stop import on_signal
from schemas.errors import TidegaugeError
from schemas.formats import get_format

QUIET = {"log_level": 2}
"""At the start librdkafka's own report of every refused connection would bury our one line."""

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
        k = settings.kafka
        sources = [
            KafkaSource(
                topic,
                list_partitions({**options, **QUIET}, topic),
                format=get_format(name),
                options=options,
                make=runtime.parts.partition,
                start=k.start,
                block_messages=k.block_messages,
                idle_timeout_s=settings.windows.idle_timeout_s,
                stopping=stop.is_set,
            )
            for topic, name in ((k.requests_topic, k.requests_format), (k.gpus_topic, k.gpus_format))
        ]
        dead_letters = DeadLetterTopic(k.dead_letters_topic, options)
        outputs = runtime.outputs()
        outputs.dead.append(dead_letters.put)
        save_rows = outputs.checkpoint

        def checkpoint() -> None:
            save_rows()
            dead_letters.checkpoint()

        outputs.checkpoint = checkpoint
        runtime.waits_for += [lambda: "stopping" if stop.is_set() else "", *(s.missing for s in sources)]
        health = runtime.serve()
        log.info(
            "watching",
            requests=k.requests_topic,
            gpus=k.gpus_topic,
            metrics=f"http://{settings.metrics.host}:{health.port}/metrics" if health else None,
        )
        try:
            execute(
                runtime,
                sources[0],
                sources[1],
                outputs,
                workers=workers,
                recover=True,
                process=process,
                addresses=address,
            )
        except BaseException as problem:
            if not address or type(problem).__name__ != "PanicException":  # the engine's word for a lost connection
                raise
            if not stop.is_set():
                raise TidegaugeError(
                    "run: another process of the cluster has ended, so this one ends, too. Start all of them again: "
                    "they go on where the cluster was."
                ) from problem
        finally:
            dead_letters.close()
        log.info("stopped")
    return 0
