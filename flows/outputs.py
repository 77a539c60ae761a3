"""Where the flow's results leave it, engine-free: each output is a function over a batch, and a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flows.steps import Closed, Priced, PricedGpus
from schemas.dead_letter import DeadLetter
from schemas.findings import Progress
from schemas.gpu_window import GpuWindows
from schemas.incident import Incident
from schemas.request_window import RequestWindows


def _nothing() -> None:
    """No checkpoint is needed."""


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
    """

    requests: list[Callable[[Sequence[Priced]], None]] = field(default_factory=list)
    gpus: list[Callable[[Sequence[PricedGpus]], None]] = field(default_factory=list)
    closed: list[Callable[[Sequence[Closed]], None]] = field(default_factory=list)
    progress: list[Callable[[Sequence[Progress]], None]] = field(default_factory=list)
    incidents: list[Callable[[Sequence[Incident]], None]] = field(default_factory=list)
    dead: list[Callable[[Sequence[DeadLetter]], None]] = field(default_factory=list)
    ordered_windows: Callable[[Sequence[RequestWindows | GpuWindows]], None] | None = None
    checkpoint: Callable[[], None] = _nothing
