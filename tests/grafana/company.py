"""A small company's rows in every table, through the real writer: two hours, all grouping sets, all roll-ups."""

from __future__ import annotations

from typing import Any

import numpy as np

from flows.settings import Windows
from schemas.cause import CAUSES
from schemas.dead_letter import DeadLetter
from schemas.errors import Reason
from schemas.findings import BASELINE, Findings, Report
from schemas.gpu_window import COLUMN as GPU_COLUMN
from schemas.gpu_window import GPU_SERIES_DIMS, MAXIMA, OWNER_DIMS, ROLLUPS, GpuWindows
from schemas.gpu_window import SUMS as GPU_SUMS
from schemas.incident import KINDS, Contributor, Factor, Incident
from schemas.request_window import COLUMN, QUANTILES, SKETCHES, SUMS, RequestWindows
from schemas.series import Series
from schemas.sketch import quantiles
from sinks.clickhouse.writer import Writer
from tests.builders import NOON_NS, SECOND_NS, costs_for, gpu_columns, request_columns, sparse

LEAF = ("team", "product", "provider", "model", "prompt_version", "api_key_id")
MEMBERS: tuple[tuple[str, ...], ...] = (
    ("search", "chat", "openai", "example-large", "v1", "key-1"),
    ("search", "agent", "anthropic", "example-small", "v2", "key-2"),
    ("support", "chat", "openai", "example-large", "v1", "key-3"),
    ("", "", "self", "mystery", "", ""),
)
"""Everybody who sends requests; `mystery` has no price, and its sender did not say who it is."""

STEP_S = 300
WINDOWS = 24
START_NS = NOON_NS + WINDOWS // 2 * STEP_S * SECOND_NS
"""Where the dashboards' range begins: an equally long time before it has rows too."""

FROM_MS = START_NS // 1_000_000
TO_MS = NOON_NS // 1_000_000 + WINDOWS * STEP_S * 1_000 - 1


def fill(writer: Writer) -> None:
    """Write rows into every table."""
    for i in range(WINDOWS):
        start_ns = NOON_NS + i * STEP_S * SECOND_NS
        writer.request_windows(request_window(start_ns, seed=i))
        writer.gpu_windows(gpu_window(start_ns, seed=i))
    # The same window again under version 2: a panel that does not read the newest version counts it twice.
    late = request_window(START_NS, seed=WINDOWS // 2)
    late.version = 2
    writer.request_windows(late)
    columns = request_columns(500)
    writer.requests(columns, costs_for(columns), "test")
    writer.gpu_samples(gpu_columns(50))
    writer.scores(report(), 0.3)
    writer.incidents(incidents())
    writer.dead_letters(
        [
            DeadLetter(
                reason=Reason.WRONG_TYPE,
                detail="expected `int`",
                topic="ai.requests",
                partition=0,
                offset=7,
                at_ns=START_NS,
                payload="{}",
            )
        ]
    )


def request_window(start_ns: int, seed: int) -> RequestWindows:
    """One window: every member once, rolled up into every default grouping set."""
    rng = np.random.default_rng(seed)
    leaf = np.zeros((len(MEMBERS), len(SUMS)), np.int64)

    def put(name: str, values: Any) -> None:
        leaf[:, COLUMN[name]] = values

    n = rng.integers(50, 100, len(MEMBERS))
    priced = np.array([m[3] != "mystery" for m in MEMBERS])
    put("requests", n)
    for k, cause in enumerate(CAUSES):
        put(f"errors_{cause.label}", 1 + (k % 3))
    put("errors", sum(1 + (k % 3) for k in range(len(CAUSES))))
    for name, per_request in (
        ("input_tokens", 2_000),
        ("output_tokens", 300),
        ("cache_read_tokens", 800),
        ("cache_write_tokens", 10),
        ("reasoning_tokens", 20),
        ("retries", 0),
    ):
        put(name, n * per_request)
    put("retries", n // 10)
    for name, pico in (
        ("cost_pico", 9_000_000_000),
        ("cost_input_pico", 5_000_000_000),
        ("cost_cache_read_pico", 1_000_000_000),
        ("cost_cache_write_pico", 500_000_000),
        ("cost_output_pico", 2_000_000_000),
        ("cost_reasoning_pico", 500_000_000),
        ("wasted_pico", 300_000_000),
        ("missed_cache_pico", 700_000_000),
    ):
        put(name, np.where(priced, n * pico, 0))
    put("unpriced_requests", np.where(priced, 0, n))
    put("unpriced_tokens", np.where(priced, 0, n * 2_300))
    put("missed_cache_requests", n // 5)
    put("outcomes", n // 4)
    put("outcome_value_pico", n * 20_000_000_000)
    put("quota_reports", n)
    put("quota_used_ppm", n * 400_000)
    put("usage_missing", 1)
    put("late", 1)
    put("rejected", 1)
    latencies = [rng.lognormal(6, 0.5, 40) for _ in MEMBERS]

    keyed: dict[Series, list[int]] = {}
    for group in Windows().grouping_sets:
        for row, member in enumerate(MEMBERS):
            values = tuple(dict(zip(LEAF, member, strict=True))[d] for d in group)
            keyed.setdefault(Series("requests", tuple(group), values), []).append(row)
    sketches = {
        name: sparse([np.concatenate([latencies[r] for r in rows]) / scale for rows in keyed.values()])
        for name, scale in zip(SKETCHES, (1, 4, 100), strict=True)
    }
    return RequestWindows(
        start_ns=start_ns,
        end_ns=start_ns + 10 * SECOND_NS,
        version=1,
        series=list(keyed),
        sums=np.stack([leaf[rows].sum(axis=0) for rows in keyed.values()]),
        sketches=sketches,
        quantiles={name: quantiles(s.rows, s.buckets, s.counts, len(keyed), QUANTILES) for name, s in sketches.items()},
    )


GPUS = tuple(
    line.split()
    for line in (
        # cluster node gpu mig gpu_model pool namespace pod team model util_source, seconds in each of STATES
        "east node-1 GPU-1 - H100 inference llm pod-1 search example-large sm_active 10 0 0 0",
        "east node-1 GPU-2 - H100 inference llm pod-2 support example-large sm_active 6 4 0 0",
        "west node-2 GPU-3 - A100 training - - - - gpu_util 0 0 7 3",
    )
)
"""`-` was not reported."""

GPU_DIMS = (*GPU_SERIES_DIMS, *OWNER_DIMS)


def gpu_window(start_ns: int, seed: int) -> GpuWindows:
    """One window of three GPUs and all of their roll-ups."""
    rng = np.random.default_rng(seed)
    sums = np.zeros((len(GPUS), len(GPU_SUMS)), np.int64)
    for row, gpu in enumerate(GPUS):
        for state, seconds in zip(("busy", "held_idle", "free", "unhealthy"), gpu[-4:], strict=True):
            sums[row, GPU_COLUMN[f"{state}_ms"]] = int(seconds) * 1_000
            sums[row, GPU_COLUMN[f"{state}_pico"]] = int(seconds) * 700_000_000
        for name, value in (
            ("samples", 10),
            ("gpus", 1),
            ("util_ppm_ms", 600_000 * 10_000),
            ("util_ms", 10_000),
            ("power_mw", 400_000),
            ("memory_used_bytes", 60 << 30),
            ("memory_total_bytes", 80 << 30),
            ("throttled_samples", 1),
            ("xid_events", int(gpu[-1]) > 0),
            ("xid_hardware_events", int(gpu[-1]) > 0),
            ("ecc_events", 0),
            ("preemptions", 2),
            ("running_milli", 8_000),
            ("waiting_milli", 1_500),
            ("kv_cache_samples", 10),
            ("kv_cache_ppm", 7_000_000),
            ("tokens_milli", 2_000_000),
        ):
            sums[row, GPU_COLUMN[name]] = int(value)
    texts = [
        dict(zip(GPU_DIMS, (t.strip("-") if t == "-" else t for t in gpu[: len(GPU_DIMS)]), strict=True))
        for gpu in GPUS
    ]
    keyed: dict[Series, list[int]] = {}
    for row, text in enumerate(texts):
        keyed[Series("gpus", GPU_SERIES_DIMS, tuple(text[d] for d in GPU_SERIES_DIMS))] = [row]
    for dims in ROLLUPS:
        for row, text in enumerate(texts):
            values = tuple(text[d] or ("unattributed" if d == "team" else "") for d in dims)
            keyed.setdefault(Series("gpus", dims, values), []).append(row)
    n = len(GPUS)
    return GpuWindows(
        start_ns=start_ns,
        end_ns=start_ns + 10 * SECOND_NS,
        version=1,
        series=list(keyed),
        is_gpu=np.arange(len(keyed)) < n,
        sums=np.stack([sums[rows].sum(axis=0) for rows in keyed.values()]),
        maxima=rng.uniform(0.1, 1.0, (len(keyed), len(MAXIMA))),
        owners={d: [texts[rows[0]][d] if i < n else "" for i, rows in enumerate(keyed.values())] for d in OWNER_DIMS},
        xids=[(79,) if i == n - 1 else () for i in range(len(keyed))],
    )


def report() -> Report:
    """Judgements of one interval."""
    series = [Series("requests", ("team",), (team,)) for team in ("search", "support")]
    return Report(
        shard="0",
        start_ns=START_NS,
        end_ns=START_NS + 60 * SECOND_NS,
        series=series,
        age_s=np.full(2, 7_200.0),
        current=np.zeros((2, len(BASELINE)), np.int64),
        usual=np.full((2, len(BASELINE)), np.nan),
        errors_by_cause=np.zeros((2, len(CAUSES)), np.int64),
        findings=[
            Findings(
                kind="cost_spike",
                detector="cost_spike",
                unit="USD per hour",
                effect_unit="USD",
                cadence="interval",
                score=np.array([0.9, 0.5]),
                observed=np.array([9.0, 2.0]),
                expected=np.array([1.5, np.nan]),
                impact_usd_per_hour=np.array([7.5, np.nan]),
                effect=np.array([7.5, 1.0]),
                volume=np.array([100.0, 90.0]),
            )
        ],
    )


def incidents() -> list[Incident]:
    """Three revisions of one resolved incident, and two that are open, one of them without a team."""

    def revision(number: int, rev: int, state: str, dims: dict[str, str], **changes: Any) -> Incident:
        fields: dict[str, Any] = {
            "incident_id": f"{KINDS[number]}-{number:012x}",
            "revision": rev,
            "kind": KINDS[number],
            "severity": "error",
            "state": state,
            "dims": dims,
            "opened_at": "2026-01-01T13:20:00Z",
            "detected_at": "2026-01-01T13:22:00Z",
            "observed": 9.0,
            "expected": 1.5,
            "unit": "USD per hour",
            "score": 0.9,
            "impact_usd_per_hour": 7.5,
            "cause": "vendor_quota",
            "retry_helps": True,
            "summary": "Team search spends more than usual.",
            "contributors": [Contributor(dims={"product": "chat"}, share=0.8, observed=8.0, expected=1.0)],
            "factors": [Factor(name="requests", share=0.25), Factor(name="tokens_per_request", share=0.75)],
            "sparkline": [1.0, 9.0],
            "links": {"dashboard": "https://grafana.example/d/x", "runbook": "https://w.example"},
        }
        return Incident(**{**fields, **changes})

    team = {"team": "search", "product": "chat", "provider": "openai", "model": "example-large"}
    return [
        revision(0, 1, "open", team),
        revision(0, 2, "updated", team, notify=False),
        revision(0, 3, "resolved", team, resolved_at="2026-01-01T13:50:00Z", contributors=[], factors=[]),
        revision(2, 1, "open", {"provider": "openai", "model": "example-large"}, severity="critical"),
        revision(11, 1, "open", {"team": "search"}, impact_usd_per_hour=None, retry_helps=None, cause=None, links={}),
    ]
