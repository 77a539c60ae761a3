"""Running the flow: opens what the settings name, hands it to the engine, and puts everything away in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import structlog
from bytewax.run import cli_main
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import CollectorRegistry

from flows.assembly import Parts
from flows.dataflow import Source, build
from flows.folding import FoldingLog
from flows.health import HealthServer
from flows.metrics import DeliveryMetrics, FlowMetrics
from flows.outputs import DatabaseOutputs, Outputs
from flows.patience import Patient
from flows.pricing import PriceBook
from flows.private_dir import make_private
from flows.recovery_store import open_store
from flows.settings import Destination, Settings
from flows.settings_file import secret
from flows.stall import KIND, StallWatch
from flows.warm_types import warm_types
from schemas.errors import DeliveryFailed
from schemas.incident import Incident
from sinks import build_sink
from sinks.clickhouse.client import connect, describe, is_temporary
from sinks.clickhouse.migrate import migrate
from sinks.clickhouse.writer import Writer
from sinks.delivery import Notifier
from sinks.routing import Route, Router

UNSAVED_EPOCH_S = 10.0
"""Length of an epoch where no state is kept."""

DRAIN_S = 60.0
"""How long an end waits for rows and messages that are on their way; what is left is on disk."""

TROUBLED_AFTER_S = 60.0
"""From so long a wait on a receiver counts as in trouble."""

HANG_UP_S = 1.0
"""How long an end then waits for a request that is under way."""


class Runtime:
    """Everything a process holds open. A context manager: leaving it delivers and closes.

    Parameters
    ----------
    settings
        Checked settings.
    notify
        Whether destinations are called.
    topic
        Whether incidents go to the incidents topic, too, without a destination that says so.
    process
        Number of this process in a cluster; it has its own outbox and spool.
    drain_s
        How long `close` waits for the destinations, and for the database.
    """

    def __init__(
        self, settings: Settings, *, notify: bool, topic: bool = False, process: int = 0, drain_s: float = DRAIN_S
    ) -> None:
        self.settings = settings
        self.drain_s = drain_s
        self.waits_for: list[Callable[[], str]] = []
        """Each says what keeps the process from being ready; empty for nothing."""
        self.process = process
        self.book = PriceBook.load(settings.pricing.overlay)
        self.parts = Parts(settings, self.book)
        self.registry = CollectorRegistry()
        self.metrics = FlowMetrics(self.registry)
        self.state_dir = Path(settings.state_dir)
        own = self.state_dir / f"process-{process}"
        make_private(own)
        self.writer = self._open_writer(own / "spool")
        self.notifier = self._open_notifier(own / "outbox.sqlite", topic) if notify else None
        self.registry.register(
            DeliveryMetrics(
                self.writer.status if self.writer else None, self.notifier.status if self.notifier else None
            )
        )
        self.health: HealthServer | None = None
        self.stalls = self._watch_stalls(own / "stall.json")

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def serve(self) -> HealthServer | None:
        """Start `/metrics` and health, if the settings want them, and watch whether the flow stands still."""
        m = self.settings.metrics
        if self.stalls is not None:
            self.stalls.start()
        if m.enabled:
            self.health = HealthServer(self.registry, m.host, m.port, self._missing)
        return self.health

    def outputs(self) -> Outputs:
        """Outputs to the database, the destinations and the metrics."""
        m = self.metrics
        folding = FoldingLog()
        out = Outputs(
            requests=[m.on_requests, folding.on_requests],
            gpus=[m.on_gpus],
            closed=[m.on_closed, folding.on_closed],
            progress=[m.on_progress],
            incidents=[m.on_incidents],
            dead=[m.on_dead],
            pressure=self.pressure,
            troubled=self.troubled,
            restored=m.on_restored,
        )
        writer, notifier = self.writer, self.notifier
        if notifier is not None:
            patient = Patient(notifier.accept)
            out.incidents.append(patient.accept)
            self.waits_for.append(patient.missing)
        if writer is not None:
            to = DatabaseOutputs(writer, self.book.version)
            if self.settings.clickhouse is not None and self.settings.clickhouse.store_requests:
                out.requests.append(to.requests)
            out.gpus.append(to.gpus)
            out.closed.append(to.closed)
            out.progress.append(to.progress)
            out.incidents.append(to.incidents)
            out.dead.append(to.dead)
            out.checkpoint = writer.checkpoint
        return out

    def close(self) -> None:
        """Deliver what is on its way, then let go of everything."""
        log = structlog.get_logger()
        if self.stalls is not None:
            self.stalls.close()
        if self.notifier is not None:
            if not self.notifier.drain(self.drain_s):
                log.warning("incidents wait in the outbox for the next start", path=str(self.state_dir))
            self.notifier.close(HANG_UP_S)
        if self.writer is not None:
            if not self.writer.drain(self.drain_s):
                log.warning("rows wait in the spool for the next start", path=str(self.state_dir))
            self.writer.close()
        if self.health is not None:
            self.health.close()

    def _missing(self) -> str:
        return self._stalled() or next((what for waits in self.waits_for if (what := waits())), "")

    def _stalled(self) -> str:
        """Why the flow waits for the database; empty while it does not."""
        status = self.writer.status() if self.writer is not None else {}
        if not status.get("blocked"):
            return ""
        trouble = "" if status["healthy"] else f" ({status['last_error']})"
        return f"{status['blocked_reason']} and ClickHouse does not take rows{trouble}"

    def _open_writer(self, spool: Path) -> Writer | None:
        c = self.settings.clickhouse
        if c is None:
            return None
        password = secret(c.password, c.password_file, "clickhouse.password")
        ready = False

        def open_client() -> Client:
            """Connect; the first connection brings the tables up to date."""
            nonlocal ready
            client = connect(c.url, password=password, verify_tls=c.verify_tls)
            if not ready:
                names = migrate(client, ttl_days_raw=c.ttl_days_raw, ttl_days_windows=c.ttl_days_windows)
                for name in names:
                    structlog.get_logger().info("migrated", migration=name)
                ready = True
            return client

        try:
            open_client().close()
        except Exception as problem:
            if isinstance(problem, ClickHouseError) and not is_temporary(problem):
                raise DeliveryFailed(
                    f"clickhouse: the tables cannot be brought up to date: {describe(problem, password)}. "
                    "Give the user the role tidegauge_migrator, or run `tidegauge migrate` as one who has it.",
                    retryable=False,
                ) from None
            if not is_temporary(problem):
                raise
            structlog.get_logger().warning("the database takes nothing; rows wait for it", why=describe(problem))
        return Writer(open_client, spool_dir=spool, spool_bytes=c.spool_bytes)

    def _open_notifier(self, outbox: Path, topic: bool) -> Notifier | None:
        s = self.settings
        options = kafka_options(s)
        destinations = list(s.destinations)
        if topic and not any(d.type == "kafka" for d in destinations):
            destinations.append(Destination(name="incidents-topic", type="kafka"))
        if not destinations:
            return None
        sinks = {
            d.name: build_sink(
                d.type,
                name=d.name,
                url=secret(d.url, d.url_file, f"destinations.{d.name}.url"),
                secret=secret(d.secret, d.secret_file, f"destinations.{d.name}.secret"),
                path=d.path,
                topic=(d.topic or s.kafka.incidents_topic) if d.type == "kafka" else d.topic,
                rate_per_s=d.rate_per_s,
                kafka_options=options,
            )
            for d in destinations
        }
        routes = [Route(r.destinations, r.kinds, r.teams, r.min_severity, r.continue_) for r in s.routes]
        return Notifier(sinks, Router(routes, list(sinks)), outbox)

    def _watch_stalls(self, path: Path) -> StallWatch | None:
        if self.writer is None or self.notifier is None:
            return None
        writer, notifier, i = self.writer, self.notifier, self.settings.incidents

        def accept(incidents: Sequence[Incident]) -> None:
            notifier.accept(incidents)
            self.metrics.on_incidents(incidents)

        return StallWatch(
            self._stalled,
            accept,
            path,
            process=self.process,
            policy=self.parts.policies[KIND],
            silences=self.parts.silences,
            record=writer.incidents,
            dashboard_url=i.dashboard_url,
            runbook_url=i.runbook_url,
        )

    def pressure(self) -> dict[str, float]:
        """What the outputs are under, for the watch over the flow itself."""
        out: dict[str, float] = {}
        if self.writer is not None and self.settings.clickhouse is not None:
            out["spool_share"] = float(self.writer.status()["spooled_bytes"]) / self.settings.clickhouse.spool_bytes
        if self.notifier is not None:
            states = self.notifier.status().values()
            out["outbox_age_s"] = max((float(state["oldest_waiting_s"]) for state in states), default=0.0)
            out["given_up"] = float(sum(int(state["dead_kept"]) for state in states))
        return out

    def troubled(self) -> list[str]:
        """Receivers that failed last, or let incidents wait."""
        states = self.notifier.status().items() if self.notifier is not None else ()
        return [
            name for name, s in states if s.get("last_error") is not None or s["oldest_waiting_s"] > TROUBLED_AFTER_S
        ]


def kafka_options(settings: Settings) -> dict[str, Any]:
    """Librdkafka options of every client."""
    k = settings.kafka
    options: dict[str, Any] = {"bootstrap.servers": k.bootstrap_servers, **k.options}
    password = secret(None, k.sasl_password_file, "kafka.sasl_password")
    if password is not None:
        options["sasl.password"] = password
    return options


def execute(
    runtime: Runtime,
    requests: Source | None,
    gpus: Source | None,
    outputs: Outputs,
    *,
    workers: int = 1,
    recover: bool = False,
    process: int | None = None,
    addresses: Sequence[str] | None = None,
) -> None:
    """Run the flow until its sources end, or for ever.

    Parameters
    ----------
    recover
        Keep state in the state directory and resume from it.
    process, addresses
        This process's number and everyone's `host:port`, for a cluster.
    """
    warm_types()
    flow = build(requests, gpus, runtime.parts, outputs, process=str(runtime.process))
    recovery = open_store(runtime.state_dir / "recovery", owner=not process) if recover else None
    cli_main(  # type: ignore[no-untyped-call]
        flow,
        workers_per_process=workers,
        process_id=process,
        addresses=list(addresses) if addresses else None,
        # Without recovery nothing reads the snapshots that end an epoch.
        epoch_interval=timedelta(seconds=runtime.settings.epoch_s if recover else UNSAVED_EPOCH_S),
        recovery_config=recovery,
    )


def incident_lines(write: Callable[[bytes], object]) -> Callable[[Sequence[Incident]], None]:
    """An output that writes incidents as JSON lines."""

    def put(incidents: Sequence[Incident]) -> None:
        for incident in incidents:
            write(msgspec.json.encode(incident) + b"\n")

    return put
