"""Which GPU series belong together: roll-ups along different dimensions often hold the same GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flows.incidents.grouping import rank
from schemas.findings import Report
from schemas.series import Series

COVERED = 0.5
"""A roll-up belongs to a group of GPUs that make up at least this part of it."""


class Kinship:
    """What is known of the GPUs in one row.

    Parameters
    ----------
    kin
        Dimensions of every single GPU, owner dimensions included.
    """

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

    def groups(self, active: Iterable[Series]) -> list[list[Series]]:
        """Split abnormal GPU series of one kind into groups of one cause each, the narrowest members first.

        Single GPUs are joined with those of the same node and team. A roll-up joins the group that it shares most GPUs
        with; it connects no groups, because a broad roll-up is abnormal whenever anything in it is.
        """
        ordered = sorted(set(active), key=lambda s: (len(self.gpus(s)), s.key()))
        out: list[tuple[list[Series], set[Series]]] = []
        places: dict[tuple[str, ...], tuple[list[Series], set[Series]]] = {}
        for single in (s for s in ordered if s in self.kin):
            place = tuple(self.kin[single].get(d, "") for d in ("cluster", "node", "team"))
            if place not in places:
                places[place] = ([], set())
                out.append(places[place])
            places[place][0].append(single)
            places[place][1].add(single)
        for rollup in (s for s in ordered if s not in self.kin):
            mine = self.gpus(rollup)
            shared = [len(mine & held) for _, held in out]
            best = max(range(len(out)), key=lambda i: (shared[i], -i), default=-1)
            if best < 0 or shared[best] == 0:
                out.append(([rollup], set(mine)))
            else:
                out[best][0].append(rollup)
        return [members for members, _ in sorted(out, key=lambda g: g[0][0].key())]

    def core(self, group: Sequence[Series]) -> list[Series]:
        """Members of a group that are about its own GPUs rather than about much else, too."""
        singles = {s for s in group if s in self.kin}
        own = singles or self.gpus(group[0])
        return [s for s in group if len(self.gpus(s)) * COVERED <= len(own)] or list(group)

    def cover(self, group: Sequence[Series], prefer: Sequence[str], reports: Sequence[Report]) -> Series | None:
        """The smallest roll-up that holds all single GPUs of a group, if they are at least half of it."""
        singles = frozenset(s for s in group if s in self.kin)
        if len(singles) < 2:
            return None
        fitting = [
            (len(self.gpus(s)), rank(s, prefer), s.key(), s)
            for report in reports
            for s in report.series
            if s.stream == "gpus" and s not in self.kin and s.dims and singles <= self.gpus(s)
        ]
        if not fitting:
            return None
        size, _, _, best = min(fitting)
        return best if len(singles) >= COVERED * size else None

    def described(self, culprit: Series, group: Sequence[Series]) -> dict[str, str]:
        """Dimensions of the culprit with their values, and what all its abnormal GPUs, else all of them, share."""
        out = {d: v for d, v in culprit.as_dict().items() if v}
        if culprit.stream != "gpus":
            return out
        gpus = [s for s in group if s in self.kin] or sorted(self.gpus(culprit))
        if gpus:
            first = self.kin[gpus[0]]
            shared = {d: v for d, v in first.items() if all(self.kin[g].get(d) == v for g in gpus)}
            out |= {d: v for d, v in shared.items() if d not in out}
        return out
