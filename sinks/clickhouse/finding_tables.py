"""Scores, incidents and dead letters as Arrow tables, in the shape of the tables of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np
import pyarrow as pa

from schemas.dead_letter import DeadLetter
from schemas.findings import Report
from schemas.incident import Incident
from sinks.clickhouse import arrow

INCIDENT_DIMS: tuple[str, ...] = ("team", "product", "environment", "provider", "model")
"""Dimensions of an incident that have a plain column beside the map."""

_MS = pa.timestamp("ms", tz="UTC")


def scores(report: Report, min_score: float) -> pa.Table | None:
    """Judgements of at least `min_score`, one row per series and detector; None where there is none."""
    parts = []
    for finding in report.findings:
        rows = np.flatnonzero(finding.score >= min_score)
        if not len(rows):
            continue
        n = len(rows)
        series = [report.series[i] for i in rows.tolist()]
        parts.append(
            pa.table(
                {
                    "window_start": arrow.times(np.full(n, report.start_ns, np.int64), "ms"),
                    "window_end": arrow.times(np.full(n, report.end_ns, np.int64), "ms"),
                    "stream": arrow.texts([s.stream for s in series]),
                    "kind": arrow.texts([finding.kind] * n),
                    "detector": arrow.texts([finding.detector] * n),
                    "cadence": arrow.texts([finding.cadence] * n),
                    "series": arrow.texts([s.key() for s in series]),
                    "dims": arrow.maps([s.as_dict() for s in series]),
                    "score": pa.array(finding.score[rows]),
                    "observed": arrow.reported_floats(finding.observed[rows]),
                    "expected": arrow.reported_floats(finding.expected[rows]),
                    "unit": arrow.texts([finding.unit] * n),
                    "impact_usd_per_hour": arrow.reported_floats(finding.impact_usd_per_hour[rows]),
                    "effect": arrow.reported_floats(finding.effect[rows]),
                    "effect_unit": arrow.texts([finding.effect_unit] * n),
                    "volume": arrow.reported_floats(finding.volume[rows]),
                    "detail": arrow.texts([finding.detail[i] if finding.detail else "" for i in rows.tolist()]),
                }
            )
        )
    return pa.concat_tables(parts) if parts else None


def incidents(revisions: Sequence[Incident]) -> pa.Table:
    """Revisions of incidents, one row each."""
    plain: dict[str, pa.Array] = {
        name: arrow.texts([getattr(i, name) for i in revisions])
        for name in ("incident_id", "kind", "severity", "state", "unit", "summary")
    }
    plain |= {name: arrow.texts([i.dims.get(name, "") for i in revisions]) for name in INCIDENT_DIMS}
    return pa.table(
        {
            **plain,
            "revision": pa.array([i.revision for i in revisions], pa.uint32()),
            "dims": arrow.maps([i.dims for i in revisions]),
            "opened_at": _moments([i.opened_at for i in revisions]),
            "detected_at": _moments([i.detected_at for i in revisions]),
            "resolved_at": _moments([i.resolved_at for i in revisions]),
            "observed": arrow.reported_floats(np.array([i.observed for i in revisions], np.float64)),
            "expected": arrow.reported_floats(np.array([i.expected for i in revisions], np.float64)),
            "score": pa.array([i.score for i in revisions], pa.float64()),
            "impact_usd_per_hour": pa.array([i.impact_usd_per_hour for i in revisions], pa.float64()),
            "cause": arrow.texts([i.cause or "" for i in revisions]),
            "retry_helps": pa.array([i.retry_helps for i in revisions], pa.bool_()),
            "contributors": arrow.texts([msgspec.json.encode(i.contributors).decode() for i in revisions]),
            "factors": arrow.texts([msgspec.json.encode(i.factors).decode() for i in revisions]),
            "sparkline": pa.array([i.sparkline for i in revisions], pa.list_(pa.float64())),
            "related": pa.array([i.related for i in revisions], pa.list_(pa.string())),
            "links": arrow.maps([i.links for i in revisions]),
            "notify": pa.array([i.notify for i in revisions], pa.bool_()),
        }
    )


def _moments(texts: Sequence[str | None]) -> pa.Array:
    """RFC 3339 texts as times; NULL for None."""
    return pa.array([None if text is None else datetime.fromisoformat(text) for text in texts], _MS)


def dead_letters(letters: Sequence[DeadLetter]) -> pa.Table:
    """Unusable messages, one row each."""
    return pa.table(
        {
            "reason": arrow.texts([letter.reason.value for letter in letters]),
            "detail": arrow.texts([letter.detail for letter in letters]),
            "topic": arrow.texts([letter.topic for letter in letters]),
            "partition": pa.array([letter.partition for letter in letters], pa.int32()),
            "offset": pa.array([letter.offset for letter in letters], pa.int64()),
            "position": pa.array([letter.position for letter in letters], pa.int32()),
            "at": arrow.times(np.array([letter.at_ns for letter in letters], np.int64)),
            "payload": arrow.texts([letter.payload for letter in letters]),
        }
    )
