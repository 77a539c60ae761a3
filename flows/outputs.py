"""Where the flow's results leave it, engine-free: each output is a function over a batch, and a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flows.pipeline import Pressure, Troubled, no_pressure, nobody
from flows.steps import Closed, Priced, PricedGpus
from schemas.dead_letter import DeadLetter
from schemas.findings import Progress
from schemas.gpu_window import GpuWindows
from schemas.incident import Incident
from schemas.request_window import RequestWindows
from sinks.clickhouse.writer import Writer


def _nothing() -> None:
    """No checkpoint is needed."""


def _ignore(incidents: Sequence[Incident]) -> None:
    """Nobody wants to know."""


@dataclass
class Outputs:
    """What the flow hands its results to. Every function may be called from any worker thread, one at a time each.

    Parameters
    ----------
    requests, gpus, closed, progress, incidents, dead
        Called with every batch of that stream, in the stream's order.
    ordered_windows
        Called with the windows in one order that does not depend on workers; None leaves that step out.
    checkpoint
        Called at the end of every epoch: when it returns, everything handed over so far survives a crash.
    pressure
        What the outputs are under, for the watch over the flow itself.
    troubled
        Names of the receivers that cause it.
    restored
        Called at a start with the incidents that were open in the saved state.
    """

    requests: list[Callable[[Sequence[Priced]], object]] = field(default_factory=list)
    gpus: list[Callable[[Sequence[PricedGpus]], object]] = field(default_factory=list)
    closed: list[Callable[[Sequence[Closed]], object]] = field(default_factory=list)
    progress: list[Callable[[Sequence[Progress]], object]] = field(default_factory=list)
    incidents: list[Callable[[Sequence[Incident]], object]] = field(default_factory=list)
    dead: list[Callable[[Sequence[DeadLetter]], object]] = field(default_factory=list)
    ordered_windows: Callable[[Sequence[RequestWindows | GpuWindows]], object] | None = None
    checkpoint: Callable[[], None] = _nothing
    pressure: Pressure = no_pressure
    troubled: Troubled = nobody
    restored: Callable[[Sequence[Incident]], object] = _ignore


MIN_SCORE = 0.3
"""Judgements below it are not worth a row in `scores`."""


class DatabaseOutputs:
    """Hands every stream's batches to the database writer.

    Parameters
    ----------
    writer
        The writer; it never waits for the database.
    price_version
        Version of the price data that requests were priced with.
    """

    def __init__(self, writer: Writer, price_version: str) -> None:
        self.writer = writer
        self.price_version = price_version

    def requests(self, values: Sequence[Priced]) -> None:
        """Raw requests with their costs."""
        for p in values:
            if p.item.batch is not None and p.costs is not None and len(p.item.batch.columns):
                self.writer.requests(p.item.batch.columns, p.costs, self.price_version)

    def gpus(self, values: Sequence[PricedGpus]) -> None:
        """Raw GPU samples."""
        for p in values:
            if p.columns is not None and len(p.columns):
                self.writer.gpu_samples(p.columns)

    def closed(self, values: Sequence[Closed]) -> None:
        """Closed windows of both streams."""
        for c in values:
            for w in c.requests:
                self.writer.request_windows(w)
            for g in c.gpus:
                self.writer.gpu_windows(g)

    def progress(self, values: Sequence[Progress]) -> None:
        """Judgements that are worth a row."""
        for p in values:
            for report in p.reports:
                self.writer.scores(report, MIN_SCORE)

    def incidents(self, values: Sequence[Incident]) -> None:
        """Incident revisions."""
        self.writer.incidents(list(values))

    def dead(self, values: Sequence[DeadLetter]) -> None:
        """Dead letters."""
        self.writer.dead_letters(list(values))
