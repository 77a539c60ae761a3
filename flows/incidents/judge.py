"""The judge: the one place where findings become incidents, so that every sink agrees.

It waits until every shard has reported a row of event time, then judges that row; so neither the number of workers
nor the order in which shards report can change what it says.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from flows.incidents import explain, plausible, text
from flows.incidents.grouping import PREFERRED, Kinship, groups, naming, related
from flows.incidents.policy import Policy, severity_of
from flows.incidents.silences import Silences
from flows.incidents.tracks import NO_FAILURES, SPARKLINE_POINTS, Observation, Track, hits
from flows.state import pack, unpack_or_cold
from schemas.findings import HISTORY, Findings, Progress, Report
from schemas.incident import SEVERITIES, Incident, Severity
from schemas.series import Series

NS = 1_000_000_000

SYMPTOM_OF: dict[str, frozenset[str]] = {
    "slo_burn": frozenset({"error_burst", "quota_saturation"}),
    "gpu_saturation": frozenset({"engine_saturation"}),
}
"""Kinds that follow from others: recorded, but not sent while an incident of the causing kind is open beside them."""

FAILURES = frozenset({"error_burst", "slo_burn", "quota_saturation"})
"""Kinds that get a cause verdict."""

_SPARKLINE = {
    "cost_spike": "cost_pico", "budget_burn": "cost_pico", "error_burst": "errors", "slo_burn": "errors",
    "quota_saturation": "errors", "traffic_drop": "requests", "context_growth": "input_tokens",
    "cache_regression": "cache_read_tokens", "latency_regression": "latency_ms_p95",
}  # fmt: skip
_UPDATE_AT = 2.0
"""An incident is told again when its impact has grown by this factor."""


@dataclass(slots=True)
class Open:
    """An incident that is not resolved yet."""

    incident: Incident
    series: Series
    detector: str
    opened_ns: int
    notified_ns: int
    told_impact: float
    members: list[tuple[str, Series]] = field(default_factory=list)


class _Row:
    """All reports of one end of a row, with lookups made at most once."""

    def __init__(self, reports: Sequence[Report]) -> None:
        self.reports = reports
        self._where: dict[int, dict[Series, int]] = {}
        self._members: dict[str, dict[Series, explain.Member]] = {}
        self.kinship = Kinship({s: k for r in reports for s, k in r.kin.items()})

    def where(self, report: Report) -> dict[Series, int]:
        """Row number of every series of a report."""
        if id(report) not in self._where:
            self._where[id(report)] = {s: i for i, s in enumerate(report.series)}
        return self._where[id(report)]

    def members(self, cadence: str) -> dict[Series, explain.Member]:
        """Every series' columns, of the reports that hold findings of this cadence."""
        if cadence not in self._members:
            self._members[cadence] = explain.members(
                [r for r in self.reports if any(f.cadence == cadence for f in r.findings)]
            )
        return self._members[cadence]

    def find(self, detector: str, series: Series) -> tuple[Report, Findings, int] | None:
        """The row of a series under a detector."""
        for report in self.reports:
            for f in report.findings:
                if f.detector == detector and series in self.where(report):
                    return report, f, self.where(report)[series]
        return None


class Judge:
    """Turns reports into incidents.

    Parameters
    ----------
    shards
        Every shard that reports; a row is judged when all have passed it.
    policies
        By kind.
    cold_start_s
        Age below which a series opens nothing of a learned kind.
    reminder_s
        An open incident is told again after this time.
    max_open
        Incidents open at once; further ones are counted in `suppressed`.
    dashboard_url, runbook_url
        Bases of links; empty leaves them out.
    saved
        What `snapshot` returned.
    """

    FORMAT = 1

    def __init__(
        self,
        shards: Iterable[str],
        policies: Mapping[str, Policy],
        *,
        cold_start_s: float = 3600.0,
        reminder_s: float = 14_400.0,
        max_open: int = 500,
        silences: Silences | None = None,
        dashboard_url: str = "",
        runbook_url: str = "",
        saved: bytes | None = None,
    ) -> None:
        self.policies = policies
        self.cold_start_s = cold_start_s
        self.reminder_s = reminder_s
        self.max_open = max_open
        self.silences = silences or Silences([])
        self.dashboard_url = dashboard_url
        self.runbook_url = runbook_url
        self.suppressed = 0
        self.open: dict[str, Open] = {}
        self._progress = dict.fromkeys(shards, -(2**62))
        self._waiting: dict[int, list[Report]] = {}
        self._tracks: dict[tuple[str, Series], Track] = {}
        state = unpack_or_cold("judge", self.FORMAT, saved)
        if state is not None:
            progress, self._waiting, self._tracks, self.open, self.suppressed = state
            self._progress = {name: progress.get(name, at) for name, at in self._progress.items()}

    def on_progress(self, progress: Progress) -> list[Incident]:
        """Take over a shard's reports; returns the revisions that could now be decided, in order."""
        for report in progress.reports:
            self._waiting.setdefault(report.end_ns, []).append(report)
        known = self._progress.get(progress.shard, -(2**62))
        self._progress[progress.shard] = max(known, progress.watermark_ns)
        now = min(self._progress.values())
        out: list[Incident] = []
        for end_ns in sorted(e for e in self._waiting if e <= now):
            reports = sorted(self._waiting.pop(end_ns), key=lambda r: (r.start_ns, r.shard))
            out += self._judge(end_ns, _Row(reports))
        return out

    def snapshot(self) -> bytes:
        """State for `saved`."""
        return pack("judge", self.FORMAT, (self._progress, self._waiting, self._tracks, self.open, self.suppressed))

    # ------------------------------------------------------------------ one row
    def _judge(self, end_ns: int, row: _Row) -> list[Incident]:
        touched: set[str] = set()
        for report in row.reports:
            for findings in report.findings:
                touched.add(findings.kind)
                self._track(report, findings, row)
        out: list[Incident] = []
        for kind in sorted(touched):
            out += self._group(kind, end_ns, row)
        for key in sorted(self.open):
            if self.open[key].incident.kind in touched:
                out += self._follow(self.open[key], end_ns, row)
        self._tracks = {k: t for k, t in self._tracks.items() if not t.forgotten}
        return out

    def _track(self, report: Report, findings: Findings, row: _Row) -> None:
        policy = self.policies[findings.kind]
        hit = hits(policy, report, findings, self.cold_start_s)
        mine = [t for t in self._tracks.values() if t.detector == findings.detector and t.shard == report.shard]
        if not hit and not mine:
            return
        where = row.where(report)
        for i in hit:
            key = (findings.detector, report.series[i])
            if key not in self._tracks:
                track = Track(findings.kind, findings.detector, report.shard, report.series[i])
                self._tracks[key] = track
                mine.append(track)
        hit_rows = set(hit)
        for track in mine:
            i = where.get(track.series, -1)
            seen = Observation.of(report, findings, i) if i >= 0 else None
            failures = report.errors_by_cause[i].tolist() if i >= 0 else NO_FAILURES
            track.step(policy, seen, hit=i in hit_rows, failures=failures)

    def _group(self, kind: str, end_ns: int, row: _Row) -> list[Incident]:
        active = [t for t in self._tracks.values() if t.kind == kind and t.active]
        if all(t.incident_id is not None for t in active):
            return []
        by_series: dict[Series, list[Track]] = {}
        for t in active:
            by_series.setdefault(t.series, []).append(t)
        out = []
        for group in groups(by_series, row.kinship.related):
            tracks = sorted((t for s in group for t in by_series[s]), key=lambda t: (t.series.key(), t.detector))
            new = [t for t in tracks if t.incident_id is None]
            if not new:
                continue
            known = sorted({t.incident_id for t in tracks if t.incident_id is not None})
            if known:
                home = min((self.open[i] for i in known), key=lambda o: (o.opened_ns, o.incident.incident_id))
            elif not any(t.hit for t in tracks):
                continue  # what was doubted while it lasted is not told when it is over
            elif len(self.open) >= self.max_open:
                self.suppressed += 1
                continue
            else:
                main = max(tracks, key=lambda t: (_size(t), -len(t.series.dims), t.series.key()))
                culprit = self._culprit(kind, tracks, main, row)
                if self._implausible(kind, culprit, main, row):
                    continue
                shown = row.kinship.described(culprit, [t.series for t in tracks])
                home = self._open(kind, culprit, shown, main, min(t.since_ns for t in tracks), end_ns, row)
                out.append(home.incident)
            for t in new:
                t.incident_id = home.incident.incident_id
                home.members.append((t.detector, t.series))
        return out

    def _implausible(self, kind: str, culprit: Series, main: Track, row: _Row) -> bool:
        if plausible.only_mix(kind, main.series, main.detector, row.reports):
            return True
        everyone = row.members(self._cadence(main, row)) if kind in plausible.ADDITIVE else {}
        return plausible.moved(kind, culprit, everyone)

    def _open(
        self, kind: str, culprit: Series, dims: dict[str, str], main: Track, opened_ns: int, end_ns: int, row: _Row
    ) -> Open:
        digest = hashlib.blake2b(f"{kind}|{culprit.key()}|{opened_ns}".encode(), digest_size=6).hexdigest()
        home = Open(
            incident=Incident(
                incident_id=f"{kind}-{digest}",
                revision=0,
                kind=kind,
                severity="info",
                state="open",
                dims=dims,
                opened_at=text.rfc3339(opened_ns),
                detected_at=text.rfc3339(end_ns),
                observed=0.0,
                expected=0.0,
                unit="",
                score=0.0,
                summary="",
            ),
            series=culprit,
            detector=main.detector,
            opened_ns=opened_ns,
            notified_ns=end_ns,
            told_impact=0.0,
        )
        home.incident = self._describe(home, main, end_ns, row, "open")
        home.told_impact = home.incident.impact_usd_per_hour or 0.0
        if self._is_symptom(home):
            home.incident = msgspec.structs.replace(home.incident, notify=False)
        self.open[home.incident.incident_id] = home
        return home

    def _culprit(self, kind: str, tracks: Sequence[Track], main: Track, row: _Row) -> Series:
        column = explain.MEASURE.get(kind)
        everyone = row.members(self._cadence(main, row)) if column else {}
        sign = -1.0 if kind in {"traffic_drop", "cache_regression"} else 1.0
        group = {t.series for t in tracks}
        if column and everyone:
            named = [s for s in group if s.dims] or list(group)
            candidates = [
                (s, sign * m.delta(column))
                for s, m in everyone.items()
                if s.dims and (s in group or any(g.contains(s) for g in named))
            ]
            candidates = [c for c in candidates if c[1] > 0]
            if candidates:
                return naming(candidates)
        rollup = row.kinship.cover([t.series for t in tracks], PREFERRED.get(kind, ()), row.reports)
        if rollup is not None:
            return rollup
        return naming([(t.series, _size(t)) for t in tracks], PREFERRED.get(kind, ()))

    def _cadence(self, track: Track, row: _Row) -> str:
        found = row.find(track.detector, track.series)
        return found[1].cadence if found else "window"

    def _follow(self, home: Open, end_ns: int, row: _Row) -> list[Incident]:
        tracks = [t for key in home.members if (t := self._tracks.get(key)) is not None]
        active = [t for t in tracks if t.active and t.incident_id == home.incident.incident_id]
        if not active:
            last = max((t.last_hit_end_ns for t in tracks), default=end_ns)
            for t in tracks:
                t.incident_id = None
            del self.open[home.incident.incident_id]
            done = msgspec.structs.replace(
                home.incident,
                revision=home.incident.revision + 1,
                state="resolved",
                resolved_at=text.rfc3339(max(last, home.opened_ns)),
            )
            return [done]
        if home.notified_ns == end_ns:
            return []
        main = max(active, key=lambda t: (_size(t), -len(t.series.dims), t.series.key()))
        now = self._describe(home, main, end_ns, row, "updated")
        worse = SEVERITIES.index(now.severity) > SEVERITIES.index(home.incident.severity)
        impact = now.impact_usd_per_hour or 0.0
        grown = impact > max(_UPDATE_AT * home.told_impact, 1.0)
        due = end_ns - home.notified_ns >= self.reminder_s * NS
        if not (worse or grown or due):
            return []
        home.notified_ns = end_ns
        home.told_impact = max(impact, home.told_impact)
        home.incident = now if worse or due else msgspec.structs.replace(now, notify=False)
        return [home.incident]

    # ------------------------------------------------------------------ content
    def _describe(self, home: Open, main: Track, end_ns: int, row: _Row, state: str) -> Incident:
        before = home.incident
        kind = before.kind
        found = row.find(home.detector, home.series)
        seen = Observation.of(*found) if found is not None else main.last
        if seen is None or (seen.score < self.policies[kind].close_score and main.last is not None):
            seen = main.last
        assert seen is not None  # a track that is active has seen a row
        everyone = row.members(found[1].cadence) if found is not None and kind in explain.MEASURE else {}
        impact = None if math.isnan(seen.impact_usd_per_hour) else round(seen.impact_usd_per_hour, 6)
        severity: Severity = severity_of(self.policies[kind], impact)
        cause, retry, reason = None, None, seen.detail
        factors = []
        if kind in {"cost_spike", "budget_burn"}:
            factors = explain.cost_factors(home.series, everyone)
        elif kind in FAILURES:
            factors = explain.error_factors(everyone.get(home.series))
        who = explain.contributors(kind, home.series, everyone)
        if kind in FAILURES:
            verdict, words = explain.cause_of(main.failures)
            cause, retry = verdict.label, explain.retry_helps(verdict)
            reason = f"Causes: {words}." if words else reason
        elif factors:
            cause = factors[0].name
            reason = f"{factors[0].share:.0%} of the change comes from {factors[0].name.replace('_', ' ')}."
            if explain.is_growth(home.series, factors, everyone):
                severity = "info"
                reason += " Requests grew across many keys: this looks like growth, not a fault."
        notify = not self.silences.match(kind, before.dims, end_ns)
        return Incident(
            incident_id=before.incident_id,
            revision=before.revision + 1,
            kind=kind,
            severity=severity,
            state="open" if state == "open" else "updated",
            dims=before.dims,
            opened_at=before.opened_at,
            detected_at=before.detected_at,
            observed=_number(seen.observed),
            expected=_number(seen.expected),
            unit=seen.unit,
            score=round(seen.score, 4),
            impact_usd_per_hour=impact,
            cause=cause,
            retry_helps=retry,
            summary=text.summary(
                kind,
                before.dims,
                observed=seen.observed,
                expected=seen.expected,
                unit=seen.unit,
                impact_usd_per_hour=impact,
                reason=reason,
            ),
            contributors=who,
            factors=factors,
            sparkline=self._sparkline(home, main, found),
            related=self._related(home),
            links=text.links(
                kind,
                before.incident_id,
                before.dims,
                home.opened_ns,
                end_ns,
                dashboard=self.dashboard_url,
                runbook=self.runbook_url,
            ),
            notify=notify,
        )

    def _sparkline(self, home: Open, main: Track, found: tuple[Report, Findings, int] | None) -> list[float]:
        """The last intervals of the measure that shows the change; the detector's own values where none is kept."""
        name = _SPARKLINE.get(home.incident.kind)
        kept = found[0].history.get(found[2]) if found is not None else None
        if name is None:
            return [_number(v) for v in main.values[-SPARKLINE_POINTS:]]
        if kept is None:
            return home.incident.sparkline
        scale = 1e-12 if name == "cost_pico" else 1.0
        return [_number(float(v) * scale) for v in kept[HISTORY.index(name)] if not math.isnan(v)]

    def _related(self, home: Open) -> list[str]:
        return sorted(
            i
            for i, o in self.open.items()
            if i != home.incident.incident_id and _beside(o.incident.dims, home.incident.dims)
        )

    def _is_symptom(self, home: Open) -> bool:
        causes = SYMPTOM_OF.get(home.incident.kind, frozenset())
        return any(
            o.incident.kind in causes
            and (related(o.series, home.series) or _beside(o.incident.dims, home.incident.dims) or not home.series.dims)
            for o in self.open.values()
        )


def _beside(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    """Whether two incidents, of any stream, agree on a team, model or node."""
    return any(a.get(d) and a.get(d) == b.get(d) for d in ("team", "model", "node"))


def _size(track: Track) -> float:
    if track.last is None:
        return 0.0
    effect = track.last.effect
    return track.last.score if math.isnan(effect) else effect


def _number(value: float) -> float:
    return 0.0 if math.isnan(value) or math.isinf(value) else round(value, 6)
