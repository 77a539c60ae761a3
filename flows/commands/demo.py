"""`tidegauge demo`: the main job on one machine, with nothing but Python."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flows.demo.broker import EmbeddedBroker
from flows.demo.matching import Injected, Match, match, parse
from flows.demo.producer import SimulationProducer
from flows.demo.receiver import Receiver
from flows.demo.view import COLOURS, Board
from flows.logs import set_up
from flows.runtime import Runtime, execute, incident_lines, kafka_options
from flows.settings import ClickHouse, Destination, Incidents, Kafka, Metrics, Settings, Windows
from flows.simulate import encode_truth, planned_incidents, simulate
from flows.sources.kafka import KafkaSource
from flows.sources.kafka_topics import Topic, list_partitions
from schemas.errors import BadSettings
from schemas.formats import get_format
from schemas.incident import Incident


def demo(
    *,
    minutes: int = 240,
    rate: float = 25.0,
    seed: int = 7,
    out: str = ".tidegauge/demo",
    quiet: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Watch a simulated company for some hours, in about a minute of real time.

    An embedded Kafka and an embedded ClickHouse start in this process, the simulator produces to Kafka, and the same
    dataflow as in production prices, aggregates and judges the events. Nothing leaves the machine.

    Example: tidegauge demo --minutes 240 --seed 7

    Parameters
    ----------
    minutes
        Simulated time.
    rate
        Mean requests per second of the company.
    seed
        Seed of everything that is random.
    out
        Folder for the database and the incidents; what an earlier demo left there is removed.
    quiet
        Leave out the closing hints (for scripts).
    """
    set_up(sys.stderr, logging.WARNING)
    console = Console(stderr=not sys.stdout.isatty())
    folder = _emptied(Path(out))
    board = Board()
    start = _last_monday(datetime.now(UTC) - timedelta(minutes=minutes))
    planned = planned_incidents("default", minutes=minutes, seed=seed, start=start)
    truth = [parse(json.loads(line)) for line in encode_truth(planned).splitlines()]
    broker, receiver = EmbeddedBroker(), Receiver()
    settings = _settings(folder, broker.address, receiver.url)
    with Runtime(settings, notify=True) as runtime, (folder / "incidents.jsonl").open("wb") as incidents_file:
        broker.create(settings.kafka.requests_topic, settings.kafka.gpus_topic)
        producer = SimulationProducer(
            broker.address,
            simulate(minutes=minutes, seed=seed, rate=rate, start=start, incidents=planned),
            requests_topic=settings.kafka.requests_topic,
            gpus_topic=settings.kafka.gpus_topic,
            consumed=board.consumed,
        )
        outputs = runtime.outputs()
        outputs.requests.append(board.on_requests)
        outputs.gpus.append(board.on_gpus)
        outputs.dead.append(board.on_dead)
        outputs.closed.append(board.on_closed)
        outputs.incidents += [board.on_incidents, incident_lines(incidents_file.write)]
        sources = [
            KafkaSource(
                Topic(topic, tuple(list_partitions(kafka_options(settings), topic))),
                format=get_format(name),
                options=kafka_options(settings),
                make=runtime.parts.partition,
                start="earliest",
                block_messages=settings.kafka.block_messages,
                idle_timeout_s=settings.windows.idle_timeout_s,
                stop_at_end=producer.finished.is_set,
                wall_ns=lambda: None,  # the events are hours old: being behind the clock is no trouble here
            )
            for topic, name in ((settings.kafka.requests_topic, "request"), (settings.kafka.gpus_topic, "gpu"))
        ]
        board.note = f"Kafka (embedded) {broker.address} → Bytewax → ClickHouse (embedded) {folder}/clickhouse"
        producer.start()
        with Live(board, console=console, refresh_per_second=4, transient=False) if console.is_terminal else _Quiet():
            execute(runtime, sources[0], sources[1], outputs)
        producer.stopped.set()
        if producer.problem is not None:
            raise producer.problem
        delivered = runtime.notifier.drain(30) if runtime.notifier is not None else True
    broker.close()
    matches, unmatched = match(truth, board.opened)
    _report(Console(), board, matches, unmatched, receiver, delivered=delivered)
    receiver.close()
    if not quiet:
        _further(Console(), folder)
    return 0 if board.opened else 1


MARK = ".tidegauge-demo"
"""File that tells a demo's folder from any other."""

QUESTION = "SELECT kind, severity, count() FROM tidegauge.incidents_latest GROUP BY ALL ORDER BY 3 DESC"


def _emptied(folder: Path) -> Path:
    """An empty folder; only what an earlier demo left is removed.

    Raises
    ------
    BadSettings
        The folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise BadSettings(f"demo: {folder} holds files that no demo wrote. Name an empty folder with --out.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    return folder


def _last_monday(before: datetime) -> datetime:
    """The last Monday, 09:00 UTC, before a moment: the simulated company is awake, whatever the hour is here."""
    nine = before.replace(hour=9, minute=0, second=0, microsecond=0)
    monday = nine - timedelta(days=nine.weekday())
    return monday if monday <= before else monday - timedelta(days=7)


class _Quiet:
    """Stands in for the live view where there is no terminal."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _settings(folder: Path, broker: str, receiver: str) -> Settings:
    return Settings(
        state_dir=str(folder / "state"),
        kafka=Kafka(bootstrap_servers=broker, options={"log_level": 0}),
        # The broker's idle partitions must not run on while the simulation pauses: no time-out within a demo.
        windows=Windows(shards=2, idle_timeout_s=3_600.0),
        incidents=Incidents(cold_start_s=1_800.0),
        clickhouse=ClickHouse(url=f"chdb://{folder / 'clickhouse'}"),
        destinations=[
            Destination(name="on-call-slack", type="slack", url=f"{receiver}/slack", rate_per_s=100.0),
            Destination(name="on-call-pagerduty", type="pagerduty", url=f"{receiver}/pagerduty", secret="demo" * 8),
            Destination(name="incidents-topic", type="kafka"),
        ],
        metrics=Metrics(enabled=False),
    )


def _report(
    console: Console,
    board: Board,
    matches: Sequence[Match],
    unmatched: Sequence[Incident],
    receiver: Receiver,
    *,
    delivered: bool,
) -> None:
    table = Table(title="What was injected, and what Tidegauge said", title_justify="left", expand=True)
    table.add_column("injected", no_wrap=True)
    table.add_column("where", ratio=1)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("said", ratio=3)
    for m in matches:
        table.add_row(*_line(m))
    console.print(table)
    real = [m for m in matches if not m.injected.benign]
    caught = [m for m in real if m.found]
    quiet = [m for m in matches if m.injected.benign and not any(i.severity != "info" for i in m.found)]
    benign = len(matches) - len(real)
    console.print(
        f"{len(caught)} of {len(real)} injected incidents were noticed; {len(quiet)} of {benign} benign events stayed "
        f"quiet or informational; {len(unmatched)} further incidents were opened."
    )
    for incident in itertools.islice(unmatched, 10):
        console.print(Text(f"  further: {incident.opened_at} {incident.kind}: {incident.summary}", style="dim"))
    seconds = board.clock() - board.started
    first = f"{board.first_incident_s:.0f} s" if board.first_incident_s is not None else "never"
    console.print(
        f"{board.requests:,} requests and {board.samples:,} GPU samples in {seconds:.0f} s "
        f"({board.consumed() / seconds:,.0f} events/s, simulator, broker and database included); first incident after "
        f"{first}; Slack received {receiver.count('/slack')} messages, PagerDuty {receiver.count('/pagerduty')}"
        f"{'' if delivered else ' (some still wait in the outbox)'}."
    )


def _line(m: Match) -> tuple[Text, str, str, Text]:
    injected: Injected = m.injected
    where = ", ".join(injected.dims.values()) or "everything"
    kind = Text(injected.kind + (" (benign)" if injected.benign else ""))
    first = m.first
    if first is None:
        return kind, where, "-", Text("stayed quiet", style="green") if injected.benign else Text("missed", style="red")
    delay = datetime.fromisoformat(first.detected_at) - injected.start
    said = Text.assemble((f"{first.kind} ", COLOURS[first.severity]), first.summary)
    return kind, where, f"{max(delay.total_seconds(), 0) / 60:.0f} min", said


def _further(console: Console, folder: Path) -> None:
    console.print(
        f"""
Look further:
  incidents, one JSON object a line    {folder}/incidents.jsonl
  ask the database                     .venv/bin/python -m flows.demo.ask {folder} "{QUESTION}"
  your own events                      tidegauge replay YOUR.jsonl --incidents -     (docs/producers.md)
  against Kafka and ClickHouse         tidegauge run --config tidegauge.yaml         (docs/operations.md)""",
        highlight=False,
        soft_wrap=True,
    )
