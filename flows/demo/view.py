"""The live terminal view: throughput, spend by team, open incidents with their explanation."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.steps import Closed, Priced, PricedGpus
from schemas.incident import Incident
from schemas.money import to_usd
from sinks.wording import clean

BARS = "▁▂▃▄▅▆▇█"
COLOURS = {"info": "cyan", "warning": "yellow", "error": "red", "critical": "bold white on red"}


def sparkline(values: Sequence[float]) -> str:
    """Values as block characters, scaled between the least and the largest."""
    known = [v for v in values if v == v]
    if not known:
        return ""
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    return "".join(BARS[min(int((v - low) / span * len(BARS)), len(BARS) - 1)] for v in known)


class Board:
    """What the view shows, fed by the flow's outputs. Safe to use from several threads.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.started = clock()
        self.lock = threading.Lock()
        self.requests = 0
        self.samples = 0
        self.failed = 0
        self.refused = 0
        self.watermark_ns = 0
        self.spend: dict[str, int] = defaultdict(int)
        self.requests_by_team: dict[str, int] = defaultdict(int)
        self.opened: list[Incident] = []
        self.latest: dict[str, Incident] = {}
        self.first_incident_s: float | None = None
        self.note = "starting the embedded broker and database ..."

    # ------------------------------------------------------------------ fed by the flow
    def on_requests(self, values: Sequence[Priced]) -> None:
        """Count requests."""
        with self.lock:
            for p in values:
                if p.item.batch is not None:
                    self.requests += len(p.item.batch.columns)
                    self.failed += int(np.count_nonzero(p.item.batch.columns.failed))

    def on_gpus(self, values: Sequence[PricedGpus]) -> None:
        """Count samples."""
        with self.lock:
            self.samples += sum(len(p.columns) for p in values if p.columns is not None)

    def on_dead(self, values: Sequence[object]) -> None:
        """Count dead letters."""
        with self.lock:
            self.refused += len(values)

    def on_closed(self, values: Sequence[Closed]) -> None:
        """Add up spend by team."""
        with self.lock:
            for closed in values:
                if 0 < closed.watermark_ns < 2**61:
                    self.watermark_ns = max(self.watermark_ns, closed.watermark_ns)
                for w in closed.requests:
                    if w.version != 1:
                        continue
                    cost, requests = w.column("cost_pico"), w.column("requests")
                    for i, series in enumerate(w.series):
                        if series.dims == ("team",):
                            self.spend[series.values[0]] += int(cost[i])
                            self.requests_by_team[series.values[0]] += int(requests[i])

    def on_incidents(self, values: Sequence[Incident]) -> None:
        """Follow incidents."""
        with self.lock:
            for incident in values:
                self.latest[incident.incident_id] = incident
                if incident.state == "open":
                    self.opened.append(incident)
                    if self.first_incident_s is None:
                        self.first_incident_s = self.clock() - self.started

    def consumed(self) -> int:
        """Events read so far, unusable ones included."""
        return self.requests + self.samples + self.refused

    # ------------------------------------------------------------------ shown
    def __rich__(self) -> RenderableType:
        """The whole view."""
        with self.lock:
            return Group(self._head(), self._teams(), self._incidents())

    def _head(self) -> RenderableType:
        seconds = max(self.clock() - self.started, 0.1)
        at = (
            datetime.fromtimestamp(self.watermark_ns / 1e9, UTC).strftime("%a %Y-%m-%d %H:%M UTC")
            if self.watermark_ns
            else "-"
        )
        text = Text.assemble(
            ("simulated time ", "dim"),
            (at, "bold"),
            ("   requests ", "dim"),
            (f"{self.requests:,}", "bold"),
            ("   GPU samples ", "dim"),
            (f"{self.samples:,}", "bold"),
            ("   events/s ", "dim"),
            (f"{self.consumed() / seconds:,.0f}", "bold"),
            ("   failed ", "dim"),
            (f"{self.failed / max(self.requests, 1):.1%}", "bold"),
            ("   dead letters ", "dim"),
            (f"{self.refused:,}", "bold"),
        )
        return Panel(Group(text, Text(self.note, style="dim")), title="Tidegauge demo", title_align="left")

    def _teams(self) -> RenderableType:
        table = Table(expand=True, box=None, pad_edge=False, title="Spend by team", title_justify="left")
        table.add_column("team")
        table.add_column("requests", justify="right")
        table.add_column("USD", justify="right")
        table.add_column("share")
        whole = sum(self.spend.values()) or 1
        for team, pico in sorted(self.spend.items(), key=lambda kv: (-kv[1], kv[0]))[:8]:
            share = pico / whole
            bar = "█" * round(share * 30)
            table.add_row(
                Text(clean(team) or "(none)"),
                f"{self.requests_by_team[team]:,}",
                usd(to_usd(pico)),
                f"{bar} {share:.0%}",
            )
        return table

    def _incidents(self) -> RenderableType:
        open_now = [i for i in self.latest.values() if i.state != "resolved"]
        done = len(self.latest) - len(open_now)
        table = Table(
            expand=True,
            box=None,
            pad_edge=False,
            title=f"Open incidents ({len(open_now)} open, {done} resolved)",
            title_justify="left",
        )
        table.add_column("since", no_wrap=True)
        table.add_column("kind", no_wrap=True)
        table.add_column("what", ratio=1)
        table.add_column("trend", no_wrap=True)
        for incident in sorted(open_now, key=lambda i: i.opened_at, reverse=True)[:8]:
            table.add_row(
                incident.opened_at[11:16],
                Text(incident.kind, style=COLOURS[incident.severity]),
                Text(clean(incident.summary)),
                sparkline(incident.sparkline),
            )
        return table


def usd(amount: Decimal) -> str:
    """Money for people."""
    return f"${amount:,.2f}"
