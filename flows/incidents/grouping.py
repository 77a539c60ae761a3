"""One cause, one incident: which abnormal series belong together, and which of them names the cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.series import Series

CARRIES = 0.8
"""A series names the cause if it carries at least this part of the largest change in its group."""


def related(a: Series, b: Series) -> bool:
    """Whether two series can share requests and have a dimension in common (the total is related to nothing)."""
    if a.stream != b.stream:
        return False
    mine, theirs = a.as_dict(), b.as_dict()
    shared = mine.keys() & theirs.keys()
    return bool(shared) and all(mine[d] == theirs[d] for d in shared)


def groups(active: Iterable[Series]) -> list[list[Series]]:
    """Split abnormal series of one kind into groups of one cause each.

    Series are joined when they agree on every dimension they share and share at least one. The total of a stream
    joins the largest group (by members, then by key), or stands alone.
    """
    ordered = sorted(set(active), key=lambda s: (s.stream, len(s.dims), s.key()))
    totals = [s for s in ordered if not s.dims]
    out: list[list[Series]] = []
    for one in (s for s in ordered if s.dims):
        near = [g for g in out if any(related(one, other) for other in g)]
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
    return min(enough, key=lambda c: (-len(c[0].dims), rank(c[0], prefer), -c[1], c[0].key()))[0]


def rank(series: Series, prefer: Sequence[str]) -> int:
    """Place of a series' best dimension in a list of preferred ones."""
    return min((prefer.index(d) for d in series.dims if d in prefer), default=len(prefer))
