"""What is made to happen: planned incidents and benign events, and their JSON lines (`truth.jsonl`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from schemas.cause import CAUSES
from schemas.errors import BadSettings

HOWS: dict[str, tuple[str, ...]] = {
    "cost_spike": ("model_switch", "prompt_bloat", "agent_loop"),
    "budget_burn": ("backfill",),
    "error_burst": ("failures",),
    "slo_burn": ("failures",),
    "quota_saturation": ("quota",),
    "latency_regression": ("slow",),
    "cache_regression": ("broken_prefix",),
    "context_growth": ("growth",),
    "traffic_drop": ("silence",),
    "unpriced_model": ("newcomer",),
    "data_quality": ("garbage",),
    "gpu_saturation": ("busy",),
    "engine_saturation": ("queue",),
    "gpu_idle": ("idle",),
    "gpu_fault": ("xid",),
    # benign
    "marketing_peak": ("users",),
    "deploy_blip": ("blip",),
    "nightly_batch": ("batch",),
    "model_launch": ("successor",),
    "dst_shift": ("clock",),
    "price_change": ("price_list",),
}
"""Kinds of events with the ways in which each can come about; the first is the default."""

BENIGN: tuple[str, ...] = (
    "marketing_peak", "deploy_blip", "nightly_batch", "model_launch", "dst_shift", "price_change",
)  # fmt: skip
"""Kinds that nobody should be paged for."""

GPU_KINDS: tuple[str, ...] = ("gpu_saturation", "engine_saturation", "gpu_idle", "gpu_fault")
"""Kinds whose `dims` choose GPUs."""

_CAUSES = {c.label for c in CAUSES}


class Planned(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One event that the simulation makes happen; also a line of `truth.jsonl`."""

    kind: str
    dims: dict[str, str]
    """What it happens to: every workload (or GPU) that has these values."""
    start: datetime
    end: datetime
    magnitude: float
    """Size, in the unit of its kind (docs/simulator.md): a factor, a share of requests, or an XID."""
    benign: bool = msgspec.field(default=False)
    cause: str | None = None
    """Cause verdict that error incidents should get."""
    how: str | None = None
    """Which of the kind's ways; the first of `HOWS` if not given."""

    @property
    def start_ns(self) -> int:
        """Start, nanoseconds since the epoch."""
        return _ns(self.start)

    @property
    def end_ns(self) -> int:
        """End (exclusive), nanoseconds since the epoch."""
        return _ns(self.end)

    @property
    def way(self) -> str:
        """The way in which it comes about."""
        return self.how or HOWS[self.kind][0]


def _ns(at: datetime) -> int:
    whole = at.astimezone(UTC)
    return int(whole.replace(microsecond=0).timestamp()) * 1_000_000_000 + whole.microsecond * 1_000


def _rfc3339(at: datetime) -> str:
    utc = at.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%SZ" if utc.microsecond == 0 else "%Y-%m-%dT%H:%M:%S.%fZ")


def check(planned: Planned, where: str = "incident") -> Planned:
    """Return `planned` if it makes sense.

    Raises
    ------
    BadSettings
        Unknown kind, way or cause; no time zone; an end before the start; a magnitude that is not positive.
    """
    if planned.kind not in HOWS:
        raise BadSettings(f"{where}: unknown kind `{planned.kind}`; known are {', '.join(HOWS)}")
    if planned.how is not None and planned.how not in HOWS[planned.kind]:
        raise BadSettings(f"{where}: unknown how `{planned.how}` of {planned.kind}; {', '.join(HOWS[planned.kind])}")
    if planned.cause is not None and planned.cause not in _CAUSES:
        raise BadSettings(f"{where}: unknown cause `{planned.cause}`; known are {', '.join(sorted(_CAUSES))}")
    if planned.start.tzinfo is None or planned.end.tzinfo is None:
        raise BadSettings(f"{where}: start and end need a time zone, such as 2026-06-01T09:00:00Z")
    if planned.end <= planned.start:
        raise BadSettings(f"{where}: end must come after start")
    if not 0 <= planned.magnitude < 1e6:
        raise BadSettings(f"{where}: magnitude must lie between 0 and 1,000,000")
    return planned


def encode_truth(planned: Sequence[Planned]) -> bytes:
    """Write events as JSON lines, in order of their start."""
    lines = []
    for p in sorted(planned, key=lambda p: (p.start_ns, p.kind, sorted(p.dims.items()))):
        row: dict[str, object] = {
            "kind": p.kind, "dims": p.dims, "start": _rfc3339(p.start), "end": _rfc3339(p.end),
            "magnitude": p.magnitude, "benign": p.benign,
        }  # fmt: skip
        if p.cause is not None:
            row["cause"] = p.cause
        row["how"] = p.way
        lines.append(msgspec.json.encode(row) + b"\n")
    return b"".join(lines)


def decode_truth(lines: Iterable[bytes], name: str = "incidents") -> list[Planned]:
    """Read events from JSON lines; empty lines are skipped.

    Raises
    ------
    BadSettings
        With the number of the line that does not fit.
    """
    decoder, planned = msgspec.json.Decoder(Planned), []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            one = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadSettings(f"{where}: {error}") from error
        planned.append(check(one, where))
    return planned


def read_truth(path: Path) -> list[Planned]:
    """Read events from a file of JSON lines."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise BadSettings(f"incidents: cannot read {path}: {error.strerror}") from error
    return decode_truth(lines, str(path))
