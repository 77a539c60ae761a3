"""What Grafana and its ClickHouse data source make of a query before the database sees it.

Follows the plugin's own order: `$__conditionalAll` first, then template variables, then the time macros. Anything that
looks like a macro or variable afterwards is an error, as it would be in the database.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Value = str | Sequence[str]
ALL = "$__all"


def expand(sql: str, from_ms: int, to_ms: int, interval_ms: int, variables: Mapping[str, Value]) -> str:
    """The text that reaches the database.

    Parameters
    ----------
    variables
        Chosen values by name; `ALL` for "All".
    """
    text = _conditional_all(sql, variables)
    text = _interpolate(text, variables)
    moments = {"fromTime_ms": from_ms, "toTime_ms": to_ms}

    def moment(ms: int) -> str:
        return f"fromUnixTimestamp64Milli({ms})"

    def time_filter(args: list[str]) -> str:
        (column,) = args
        return f"{column} >= {moment(from_ms)} AND {column} <= {moment(to_ms)}"

    def time_interval(args: list[str]) -> str:
        (column,) = args
        return f"toStartOfInterval(toDateTime64({column}, 3), INTERVAL {interval_ms} millisecond)"

    text = _macro(text, "timeFilter_ms", time_filter)
    text = _macro(text, "timeInterval_ms", time_interval)
    for name, ms in moments.items():
        text = re.sub(rf"\$__{name}\b", moment(ms), text)
    text = re.sub(r"\$__interval_s\b", str(interval_ms // 1000), text)
    left = re.search(r"\$(\w+|\{)", text)
    if left:
        raise ValueError(f"{text[left.start() : left.start() + 60]!r} is no macro or variable")
    return text


def _conditional_all(sql: str, variables: Mapping[str, Value]) -> str:
    def replaced(args: list[str]) -> str:
        condition, variable = args
        name = re.fullmatch(r"\s*\$(\w+)\s*", variable)
        if name is None or name[1] not in variables:
            raise ValueError(f"$__conditionalAll names {variable.strip()!r}, which is no variable of the dashboard")
        value = variables[name[1]]
        text = value if isinstance(value, str) else ",".join(value)
        return "1=1" if text in ("", ALL) else condition

    return _macro(sql, "conditionalAll", replaced)


def _interpolate(sql: str, variables: Mapping[str, Value]) -> str:
    def value(match: re.Match[str]) -> str:
        name, form = match[1], match[2] or ""
        if name not in variables:
            raise ValueError(f"{match[0]} is no variable of the dashboard")
        chosen = variables[name]
        if form == ":sqlstring":
            values = [chosen] if isinstance(chosen, str) else chosen
            return ",".join("'" + v.replace("'", "''") + "'" for v in values)
        if form or not isinstance(chosen, str):
            raise ValueError(f"{match[0]}: only single values may stand without :sqlstring")
        return chosen

    return re.sub(r"\$\{(\w+)(:\w+)?\}", value, sql)


def _macro(sql: str, name: str, replace: Callable[[list[str]], str]) -> str:
    """Replace every call of one macro, innermost last; arguments split at commas outside brackets."""
    start = f"$__{name}("
    while (at := sql.rfind(start)) >= 0:
        depth, args, begin = 1, [], at + len(start)
        for end in range(begin, len(sql)):
            char = sql[end]
            depth += (char == "(") - (char == ")")
            if (char == "," and depth == 1) or depth == 0:
                args.append(sql[begin:end])
                begin = end + 1
            if depth == 0:
                sql = sql[:at] + replace(args) + sql[end + 1 :]
                break
        else:
            raise ValueError(f"{start} is not closed")
    return sql
