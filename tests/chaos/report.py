"""What a fault did, as rows of one table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

PHASES = ("before", "during", "after")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault.

    Parameters
    ----------
    fault
        What was done, in words.
    events_in, rows_out
        Events that Kafka acknowledged, and their rows in ClickHouse after FINAL.
    lost, doubled
        Events without a row, and rows beyond one per event.
    uncounted
        Requests that have a row but are missing in the windows of the total.
    alerts_in, alerts_lost, alerts_doubled
        Faults of GPUs that on-call had to hear of; those of which nothing or no end was ever told; and further
        identities under which one of them was told: a repeated message has its own again.
    before_s, during_s, after_s
        95th percentile of window end to delivery, by when the window ended; NaN without alerts.
    peak_memory_mb
        Largest resident set of a Tidegauge process.
    note
        What else was measured.
    """

    fault: str
    events_in: int
    rows_out: int
    lost: int
    doubled: int
    uncounted: int = 0
    alerts_in: int = 0
    alerts_lost: int = 0
    alerts_doubled: int = 0
    before_s: float = math.nan
    during_s: float = math.nan
    after_s: float = math.nan
    peak_memory_mb: float = math.nan
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Values by name; None for what was not measured."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


HEAD = (
    "fault", "events in", "rows out", "lost", "doubled", "uncounted", "alerts", "alerts lost", "alerts doubled",
    "delay before s", "during s", "after s", "peak MB", "note",
)  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed; NaN for none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def markdown(rows: Iterable[Row]) -> str:
    """The table."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for r in rows:
        cells = (
            r.fault, f"{r.events_in:,}", f"{r.rows_out:,}", f"{r.lost:,}", f"{r.doubled:,}", f"{r.uncounted:,}",
            f"{r.alerts_in:,}", f"{r.alerts_lost:,}", f"{r.alerts_doubled:,}",
            _seconds(r.before_s), _seconds(r.during_s), _seconds(r.after_s), _whole(r.peak_memory_mb), r.note,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _whole(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}"
