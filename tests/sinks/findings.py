"""One report, incident and dead letter for the tests of sinks."""

from __future__ import annotations

import numpy as np

from schemas.cause import CAUSES
from schemas.dead_letter import DeadLetter
from schemas.errors import Reason
from schemas.findings import BASELINE, Findings, Report
from schemas.incident import Contributor, Factor, Incident
from schemas.series import Series
from tests.builders import NOON_NS, SECOND_NS

SERIES = [Series("requests", ("team",), (team,)) for team in ("growth", "search", "a,b")]

REPORT = Report(
    shard="0",
    start_ns=NOON_NS,
    end_ns=NOON_NS + 60 * SECOND_NS,
    series=SERIES,
    age_s=np.full(3, 7_200.0),
    current=np.zeros((3, len(BASELINE)), np.int64),
    usual=np.full((3, len(BASELINE)), np.nan),
    errors_by_cause=np.zeros((3, len(CAUSES)), np.int64),
    findings=[
        Findings(
            kind="cost_spike",
            detector="CostSpike",
            unit="USD/h",
            effect_unit="USD/h",
            cadence="interval",
            score=np.array([0.2, 0.9, 0.95]),
            observed=np.array([1.0, 9.0, 12.5]),
            expected=np.array([1.0, 1.5, np.nan]),
            impact_usd_per_hour=np.array([0.0, 7.5, np.nan]),
            effect=np.array([0.0, 7.5, 3.0]),
            volume=np.array([100.0, 200.0, 300.0]),
            detail=["", "why", ""],
        )
    ],
)

INCIDENT = Incident(
    incident_id="inc-1",
    revision=1,
    kind="cost_spike",
    severity="error",
    state="open",
    dims={"team": "search", "model": "example-large"},
    opened_at="2026-01-01T12:00:00Z",
    detected_at="2026-01-01T12:01:00.250Z",
    observed=9.0,
    expected=1.5,
    unit="USD/h",
    score=0.9,
    impact_usd_per_hour=7.5,
    cause="vendor_quota",
    retry_helps=True,
    summary="search spends six times as much as usual, \"quoted\" and 'quoted'.",
    contributors=[Contributor(dims={"team": "search", "model": "m"}, share=0.8, observed=8.0, expected=1.0)],
    factors=[Factor(name="requests", share=0.75), Factor(name="tokens_per_request", share=0.25)],
    sparkline=[1.0, 2.0, 9.0],
    related=["inc-0"],
    links={"dashboard": "http://grafana/d/cost"},
)

LETTER = DeadLetter(
    reason=Reason.WRONG_TYPE,
    detail="expected `int`, got `str` - at `$.status`",
    topic="ai.requests",
    partition=3,
    offset=12,
    at_ns=NOON_NS + 123_456_789,
    payload='{"status": "x"}',
)
