"""The judge: the one place where findings become incidents, so that every sink agrees.

It waits until every shard has reported a row of event time, then judges that row; so neither the number of workers
nor the order in which shards report can change what it says.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from flows.incidents import explain, plausible, text
from flows.incidents.describe import Describer, Open
from flows.incidents.grouping import PREFERRED, groups, naming, related
from flows.incidents.policy import Policy
from flows.incidents.row import Row
from flows.incidents.silences import Silences
from flows.incidents.tracks import NO_FAILURES, Observation, Track, hits
from flows.state import fingerprint, pack, unpack_or_cold
from schemas.cause import CAUSES
from schemas.findings import BASELINE, HISTORY, Findings, Progress, Report
from schemas.incident import SEVERITIES, Incident
from schemas.series import Series

NS = 1_000_000_000

SYMPTOM_OF: dict[str, frozenset[str]] = {
    "slo_burn": frozenset({"error_burst", "quota_saturation"}),
    "gpu_saturation": frozenset({"engine_saturation"}),
}
"""Kinds that follow from others: recorded, but not sent while an incident of the causing kind is open beside them."""

_UPDATE_AT = 2.0
"""An incident is told again when its impact has grown by this factor."""

_Saved = tuple[dict[str, int], dict[int, list[Report]], dict[tuple[str, Series], Track], dict[str, Open], int]


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

    FORMAT = fingerprint(2, BASELINE, HISTORY, CAUSES)

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
        self._describer = Describer(policies, silences or Silences([]), dashboard_url, runbook_url)
        self.suppressed = 0
        self.open: dict[str, Open] = {}
        self._progress = dict.fromkeys(shards, -(2**62))
        self._waiting: dict[int, list[Report]] = {}
        self._tracks: dict[tuple[str, Series], Track] = {}
        state = unpack_or_cold("judge", self.FORMAT, saved, _Saved)
        if state is not None:
            progress, self._waiting, self._tracks, self.open, self.suppressed = state
            self._progress = {name: progress.get(name, at) for name, at in self._progress.items()}
            # Shards that are gone (another number of them in the settings) will never report again.
            self._tracks = {key: t for key, t in self._tracks.items() if t.shard in self._progress}
            self._waiting = {
                end: kept for end, rs in self._waiting.items() if (kept := [r for r in rs if r.shard in self._progress])
            }

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
            out += self._judge(end_ns, Row(reports))
        return out

    def snapshot(self) -> bytes:
        """State for `saved`."""
        return pack("judge", self.FORMAT, (self._progress, self._waiting, self._tracks, self.open, self.suppressed))

    # ------------------------------------------------------------------ one row
    def _judge(self, end_ns: int, row: Row) -> list[Incident]:
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

    def _track(self, report: Report, findings: Findings, row: Row) -> None:
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

    def _group(self, kind: str, end_ns: int, row: Row) -> list[Incident]:
        active = [t for t in self._tracks.values() if t.kind == kind and t.active]
        for t in active:
            if t.incident_id not in self.open:
                t.incident_id = None
        if all(t.incident_id is not None for t in active):
            return []
        by_series: dict[Series, list[Track]] = {}
        for t in active:
            by_series.setdefault(t.series, []).append(t)
        out = []
        for group in self._grouped(by_series, row):
            everyone = [t for s in group for t in sorted(by_series[s], key=lambda t: t.detector)]
            core = set(row.kinship.core(group)) if group[0].stream == "gpus" else set(group)
            tracks = [t for t in everyone if t.series in core]
            if all(t.incident_id is not None for t in tracks):
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
                shown = row.kinship.described(culprit, group)
                home = self._open(kind, culprit, shown, main, min(t.since_ns for t in tracks), end_ns, row)
                out.append(home.incident)
            for t in everyone:
                if t.incident_id is None:
                    t.incident_id = home.incident.incident_id
                    if t.series in core:  # a broad roll-up neither names an incident nor keeps it open
                        home.members.append((t.detector, t.series))
        return out

    @staticmethod
    def _grouped(active: Iterable[Series], row: Row) -> list[list[Series]]:
        gpus = [s for s in active if s.stream == "gpus"]
        return groups(s for s in active if s.stream != "gpus") + row.kinship.groups(gpus)

    def _implausible(self, kind: str, culprit: Series, main: Track, row: Row) -> bool:
        if plausible.only_mix(kind, main.series, main.detector, row.reports):
            return True
        everyone = row.members(self._cadence(main, row)) if kind in plausible.ADDITIVE else {}
        return plausible.moved(kind, culprit, everyone)

    def _open(
        self, kind: str, culprit: Series, dims: dict[str, str], main: Track, opened_ns: int, end_ns: int, row: Row
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
        home.incident = self._describer.describe(home, main, end_ns, row, state="open", related=self._related(home))
        home.told_impact = home.incident.impact_usd_per_hour or 0.0
        if self._is_symptom(home):
            home.incident = msgspec.structs.replace(home.incident, notify=False)
        home.told = home.incident.notify
        self.open[home.incident.incident_id] = home
        return home

    def _culprit(self, kind: str, tracks: Sequence[Track], main: Track, row: Row) -> Series:
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

    def _cadence(self, track: Track, row: Row) -> str:
        found = row.find(track.detector, track.series)
        return found[1].cadence if found else "window"

    def _follow(self, home: Open, end_ns: int, row: Row) -> list[Incident]:
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
                notify=home.told,  # the newest revision may have been for the record only
            )
            return [done]
        if home.notified_ns == end_ns:
            return []
        main = max(active, key=lambda t: (_size(t), -len(t.series.dims), t.series.key()))
        now = self._describer.describe(home, main, end_ns, row, state="updated", related=self._related(home))
        worse = SEVERITIES.index(now.severity) > SEVERITIES.index(home.incident.severity)
        impact = now.impact_usd_per_hour or 0.0
        grown = impact > max(_UPDATE_AT * home.told_impact, 1.0)
        due = end_ns - home.notified_ns >= self.reminder_s * NS
        if not (worse or grown or due):
            return []
        home.notified_ns = end_ns
        home.told_impact = max(impact, home.told_impact)
        home.incident = now if worse or due else msgspec.structs.replace(now, notify=False)
        home.told |= home.incident.notify
        return [home.incident]

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
