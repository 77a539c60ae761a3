"""Pieces of the dashboards' SQL: which rows of the window tables a panel reads, and how they are filtered.

A window table holds every request once per grouping set. A panel must read rows of exactly one grouping set, or it
counts twice. Which one is decided when the query runs: the smallest set that has the panel's dimensions and those that
the viewer filters by.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.settings import Windows
from schemas.gpu_window import GPU_SERIES_DIMS, OWNER_DIMS, ROLLUPS

NONE = "(none)"
"""What stands for a dimension that was not reported."""

NO_GROUPING = "no grouping set has these dimensions"
"""Matches no row: an empty panel is better than a wrong one."""

REQUEST_GROUPINGS: tuple[tuple[str, ...], ...] = tuple(tuple(dims) for dims in Windows().grouping_sets)
"""The default grouping sets (`windows.grouping_sets`), which the dashboards rely on."""

GPU_COLUMNS = frozenset({*GPU_SERIES_DIMS, *OWNER_DIMS})
"""What a single GPU's row knows."""


def named(dim: str, *, gpus: bool = False) -> str:
    """A dimension as people read it."""
    if gpus and dim == "team":
        return f"if(team IN ('', 'unattributed'), '{NONE}', team)"
    return f"if({dim} = '', '{NONE}', {dim})"


def chosen(dim: str, *, gpus: bool = False) -> str:
    """Condition: the viewer's choice for a dimension, or everything."""
    return f"$__conditionalAll({named(dim, gpus=gpus)} IN (${{{dim}:sqlstring}}), ${dim})"


def everything(dim: str) -> str:
    """Condition: the viewer chose "All" for a dimension. The macro turns into 1=1 exactly then."""
    return f"$__conditionalAll(0=1, ${dim})"


def _grouping(candidates: Sequence[tuple[str, frozenset[str]]], by: Sequence[str], variables: Sequence[str]) -> str:
    fitting = [(name, has) for name, has in candidates if has >= set(by)]
    if not fitting:
        raise ValueError(f"no grouping set has {list(by)}")
    branches = []
    for name, has in fitting:
        missing = [v for v in variables if v not in has]
        if not missing:
            branches.append(_quoted(name))
            break
        branches.append(f"{' AND '.join(everything(v) for v in missing)}, {_quoted(name)}")
    else:
        branches.append(_quoted(NO_GROUPING))
    return (
        f"grouping = {branches[0]}"
        if len(branches) == 1
        else "grouping = multiIf(\n        " + ",\n        ".join(branches) + ")"
    )


def _quoted(text: str) -> str:
    return f"'{text}'"


def request_rows(variables: Sequence[str], by: Sequence[str] = (), *, time: bool = True) -> str:
    """Conditions on `request_windows`: one grouping set, the chosen time range, the viewer's filters.

    Parameters
    ----------
    variables
        Template variables that the panel obeys.
    by
        Dimensions that the panel shows.
    time
        Whether the dashboard's time range applies.
    """
    candidates = sorted(((",".join(g), frozenset(g)) for g in REQUEST_GROUPINGS), key=lambda c: len(c[1]))
    return _conditions(_grouping(candidates, by, variables), time, [chosen(v) for v in variables])


def gpu_rows(variables: Sequence[str], by: Sequence[str] = (), *, time: bool = True) -> str:
    """Conditions on `gpu_windows`, as in `request_rows`."""
    candidates = sorted(((",".join(g), frozenset(g)) for g in ROLLUPS), key=lambda c: len(c[1]))
    candidates.append((",".join(GPU_SERIES_DIMS), GPU_COLUMNS))
    return _conditions(_grouping(candidates, by, variables), time, [chosen(v, gpus=True) for v in variables])


def _conditions(grouping: str, time: bool, filters: Sequence[str]) -> str:
    return "\n    AND ".join([grouping, *(["$__timeFilter_ms(window_start)"] if time else []), *filters])


def ratio(numerator: str, denominator: str) -> str:
    """Sum over sum; NULL where there is nothing to divide by."""
    return f"sum({numerator}) / nullIf(sum({denominator}), 0)"


def usd(column: str) -> str:
    """Sum of money; NULL where no price is known."""
    return f"toFloat64(sum({column}))"


def per_hour(expression: str) -> str:
    """An interval's sum as a rate per hour."""
    return f"({expression}) * 3600 / $__interval_s"


def over_time(table: str, where: str, values: Sequence[tuple[str, str]], by: str = "", having: str = "") -> str:
    """A time series: (expression, name) pairs per interval, and per value of `by` where given."""
    lines = ["$__timeInterval_ms(window_start) AS time", *([f"{by} AS series"] if by else [])]
    lines += [f"{expression} AS {quoted(name)}" for expression, name in values]
    tail = f"\nHAVING {having}" if having else ""
    return (
        f"SELECT\n    {_joined(lines)}\nFROM {table}\nWHERE {where}\n"
        f"GROUP BY time{', series' if by else ''}{tail}\nORDER BY time"
    )


def top(key: str, rank: str, table: str, where: str, n: int = 12) -> str:
    """Expression: the n largest values of a dimension by name, the rest together, so that a stack adds up."""
    inner = where.replace("\n", "\n        ")
    return (
        f"if({key} IN (\n        SELECT {key} FROM {table}\n        WHERE {inner}\n"
        f"        GROUP BY {key} ORDER BY {rank} DESC LIMIT {n}), {key}, 'all others')"
    )


def listed(
    table: str,
    where: str,
    keys: Sequence[tuple[str, str]],
    values: Sequence[tuple[str, str]],
    order: str,
    limit: int = 100,
) -> str:
    """A table: keys and values as (expression, heading) pairs."""
    lines = [f"{expression} AS {quoted(name)}" for expression, name in (*keys, *values)]
    groups = ", ".join(quoted(name) for _, name in keys)
    return (
        f"SELECT\n    {_joined(lines)}\nFROM {table}\nWHERE {where}\nGROUP BY {groups}\nORDER BY {order}\nLIMIT {limit}"
    )


def single(table: str, where: str, expression: str, name: str) -> str:
    """One number."""
    return f"SELECT {expression} AS {quoted(name)}\nFROM {table}\nWHERE {where}"


def quoted(name: str) -> str:
    """A heading as an SQL identifier."""
    return f"`{name}`" if not name.isidentifier() else name


def _joined(lines: Sequence[str]) -> str:
    return ",\n    ".join(lines)
