"""One cause, one incident: which abnormal series belong together, and which of them names the cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from schemas.findings import Report
from schemas.series import Series

Related = Callable[[Series, Series], bool]

CARRIES = 0.8
"""A series names the cause if it carries at least this part of the largest change in its group."""


def related(a: Series, b: Series) -> bool:
    """Whether two series can share requests and have a dimension in common (the total is related to nothing)."""
    if a.stream != b.stream:
        return False
    mine, theirs = a.as_dict(), b.as_dict()
    shared = mine.keys() & theirs.keys()
    return bool(shared) and all(mine[d] == theirs[d] for d in shared)


class Kinship:
    """Relatedness of GPU series: roll-ups along different dimensions often hold the same GPUs.

    Parameters
    ----------
    kin
        Dimensions of every single GPU, owner dimensions included.
    """

    OVERLAP = 0.5
    """Two series are related if this part of the smaller one's GPUs is common."""

    def __init__(self, kin: Mapping[Series, Mapping[str, str]]) -> None:
        self.kin = kin
        self._gpus: dict[Series, frozenset[Series]] = {}

    def gpus(self, series: Series) -> frozenset[Series]:
        """GPUs of a roll-up; a single GPU is its own."""
        if series not in self._gpus:
            if series in self.kin:
                found = frozenset([series])
            else:
                wanted = {d: v for d, v in series.as_dict().items() if v not in ("", "unattributed")}
                missing = [d for d in series.dims if d not in wanted]
                found = frozenset(
                    s
                    for s, k in self.kin.items()
                    if all(k.get(d) == v for d, v in wanted.items()) and not any(k.get(d) for d in missing)
                )
            self._gpus[series] = found
        return self._gpus[series]

    def cover(self, group: Sequence[Series], prefer: Sequence[str], reports: Sequence[Report]) -> Series | None:
        """The smallest roll-up that holds all single GPUs of a group, if they are at least half of it."""
        singles = frozenset(s for s in group if s in self.kin)
        if len(singles) < 2:
            return None
        fitting = [
            (len(self.gpus(s)), _rank(s, prefer), s.key(), s)
            for report in reports
            for s in report.series
            if s.stream == "gpus" and s not in self.kin and s.dims and singles <= self.gpus(s)
        ]
        if not fitting:
            return None
        size, _, _, best = min(fitting)
        return best if len(singles) >= self.OVERLAP * size else None

    def described(self, culprit: Series, group: Sequence[Series]) -> dict[str, str]:
        """Dimensions of the culprit with their values, and what all its abnormal GPUs, else all of them, share."""
        out = {d: v for d, v in culprit.as_dict().items() if v}
        gpus = [s for s in group if s in self.kin] or sorted(self.gpus(culprit)) if culprit.stream == "gpus" else []
        if gpus:
            first = self.kin[gpus[0]]
            shared = {d: v for d, v in first.items() if all(self.kin[g].get(d) == v for g in gpus)}
            out |= {d: v for d, v in shared.items() if d not in out}
        return out

    def related(self, a: Series, b: Series) -> bool:
        """Whether two series share enough GPUs, or requests as `related` says."""
        if a.stream != "gpus" or b.stream != "gpus":
            return related(a, b)
        if a in self.kin and b in self.kin:  # two single GPUs: neighbours of one team
            return all(self.kin[a].get(d) == self.kin[b].get(d) for d in ("cluster", "node", "team"))
        mine, theirs = self.gpus(a), self.gpus(b)
        common = len(mine & theirs)
        return common > 0 and common >= self.OVERLAP * min(len(mine), len(theirs))


def groups(active: Iterable[Series], near_to: Related = related) -> list[list[Series]]:
    """Split abnormal series of one kind into groups of one cause each.

    Series are joined when they agree on every dimension they share and share at least one. The total of a stream
    joins the largest group (by members, then by key), or stands alone.
    """
    ordered = sorted(set(active), key=lambda s: (s.stream, len(s.dims), s.key()))
    totals = [s for s in ordered if not s.dims]
    out: list[list[Series]] = []
    for one in (s for s in ordered if s.dims):
        near = [g for g in out if any(near_to(one, other) for other in g)]
        joined = [one, *(s for g in near for s in g)]
        out = [g for g in out if g not in near]
        out.append(sorted(joined, key=lambda s: (len(s.dims), s.key())))
    for total in totals:
        same = [g for g in out if g[0].stream == total.stream]
        if same:
            max(same, key=lambda g: (len(g), g[0].key())).insert(0, total)
        else:
            out.append([total])
    return sorted(out, key=lambda g: g[0].key())


PREFERRED: dict[str, tuple[str, ...]] = {
    "engine_saturation": ("model", "node", "pool", "team"),
    "gpu_saturation": ("pool", "model", "node", "team"),
    "gpu_idle": ("team", "pool", "node", "model"),
}
"""Roll-ups that name the cause best, by kind, where several are equally specific."""


def naming(candidates: Sequence[tuple[Series, float]], prefer: Sequence[str] = ()) -> Series:
    """The most specific series that carries the change.

    Parameters
    ----------
    candidates
        Series with the size of their change, not empty.
    prefer
        Dimensions, best first, to choose by among equally specific series.
    """
    largest = max(delta for _, delta in candidates)
    enough = [(s, delta) for s, delta in candidates if delta >= CARRIES * largest]
    return min(enough, key=lambda c: (-len(c[0].dims), _rank(c[0], prefer), -c[1], c[0].key()))[0]


def _rank(series: Series, prefer: Sequence[str]) -> int:
    return min((prefer.index(d) for d in series.dims if d in prefer), default=len(prefer))
