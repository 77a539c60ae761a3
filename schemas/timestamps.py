"""Event times: `at` of an event as int64 nanoseconds since the epoch.

Texts follow RFC 3339 and need a zone. Numbers count from the epoch, their unit is decided by magnitude: below 1e11
seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds. A float stands for the shortest decimal
that names it, so 1700000000.123 is exactly 123 ms after the second. A leap second is the second that follows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from schemas.errors import BadEvent, Reason

SECOND_NS = 1_000_000_000
DAY_S = 86_400
EPOCH_DAY = date(1970, 1, 1).toordinal()
FIRST_YEAR, END_YEAR = 2000, 2100
MIN_NS = (date(FIRST_YEAR, 1, 1).toordinal() - EPOCH_DAY) * DAY_S * SECOND_NS
"""2000-01-01T00:00:00Z, the first instant that is believed."""
END_NS = (date(END_YEAR, 1, 1).toordinal() - EPOCH_DAY) * DAY_S * SECOND_NS
"""2100-01-01T00:00:00Z, the first instant that is not."""

UNITS: tuple[tuple[float, int], ...] = ((1e11, SECOND_NS), (1e14, 1_000_000), (1e17, 1_000), (float("inf"), 1))
"""Upper bound of the magnitude, and nanoseconds of the unit that numbers below it are in."""

RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", flags=re.ASCII
)
MAX_TEXT = 64

_MONTHS = [date(y, m, 1).toordinal() - EPOCH_DAY for y in range(FIRST_YEAR, END_YEAR) for m in range(1, 13)]
_MONTH_STARTS = np.array([*_MONTHS, date(END_YEAR, 1, 1).toordinal() - EPOCH_DAY], dtype=np.int64)
"""Day number of the first of every month that is believed, and of the month after the last."""


def to_ns(at: object) -> int:
    """Nanoseconds since the epoch of one `at`.

    Raises
    ------
    BadEvent
        `BAD_TIMESTAMP`: not RFC 3339 with a zone, not a finite number, or outside 2000-01-01 .. 2100-01-01.

    Examples
    --------
    >>> to_ns("2026-01-01T01:00:00.5+01:00") == to_ns(1767225600.5) == 1767225600500000000
    True
    """
    if isinstance(at, bool):
        raise BadEvent(Reason.BAD_TIMESTAMP, "`at` is a boolean")
    if isinstance(at, str):
        ns = _text_to_ns(at)
    elif isinstance(at, int):
        ns = _int_to_ns(at)
    elif isinstance(at, float):
        ns = _float_to_ns(at)
    else:
        raise BadEvent(Reason.BAD_TIMESTAMP, "`at` is neither text nor a number")
    if not MIN_NS <= ns < END_NS:
        raise BadEvent(Reason.BAD_TIMESTAMP, "`at` lies outside 2000-01-01 .. 2100-01-01")
    return ns


def _int_to_ns(at: int) -> int:
    for bound, unit in UNITS:
        if abs(at) < bound:
            return at * unit
    raise AssertionError("unreachable: the last bound is infinite")


def _float_to_ns(at: float) -> int:
    if not abs(at) < 1e19:  # NaN, infinite, or far outside anything that is believed
        raise BadEvent(Reason.BAD_TIMESTAMP, "`at` is not a finite number of a believable size")
    unit = next(unit for bound, unit in UNITS if abs(at) < bound)
    return int((Decimal(repr(at)) * unit).to_integral_value())


def _text_to_ns(at: str) -> int:
    match = RFC3339.fullmatch(at) if len(at) <= MAX_TEXT else None
    if match is None:
        raise BadEvent(Reason.BAD_TIMESTAMP, "`at` is not RFC 3339 with a zone, such as 2026-01-31T12:00:00.5Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, zone_hour, zone_minute = match.groups()[6:]
    try:
        days = date(year, month, day).toordinal() - EPOCH_DAY
    except ValueError:
        raise BadEvent(Reason.BAD_TIMESTAMP, "`at` names a day that does not exist") from None
    if hour > 23 or minute > 59 or second > 60 or int(zone_hour or 0) > 23 or int(zone_minute or 0) > 59:
        raise BadEvent(Reason.BAD_TIMESTAMP, "`at` names a time of day or a zone that does not exist")
    offset_s = (int(zone_hour or 0) * 60 + int(zone_minute or 0)) * 60
    seconds = days * DAY_S + (hour * 60 + minute) * 60 + second - (-offset_s if sign == "-" else offset_s)
    if second == 60 and not _month_begins(seconds):
        raise BadEvent(Reason.BAD_TIMESTAMP, "`at` names a leap second away from the end of a month (UTC)")
    return seconds * SECOND_NS + int((fraction or "0")[:9].ljust(9, "0"))


def _month_begins(seconds: int) -> bool:
    day, rest = divmod(seconds, DAY_S)
    return rest == 0 and 0 < day + EPOCH_DAY <= date.max.toordinal() and date.fromordinal(day + EPOCH_DAY).day == 1


def all_to_ns(values: Sequence[object]) -> tuple[npt.NDArray[np.int64], dict[int, BadEvent]]:
    """Nanoseconds of many `at`, vectorised where they have the usual forms.

    Parameters
    ----------
    values
        `at` of each event, as decoded.

    Returns
    -------
    ns : int64, shape (n,)
        0 where the time cannot be used.
    bad
        By index: why not.
    """
    n = len(values)
    ns = np.zeros(n, dtype=np.int64)
    kinds = set(map(type, values))
    for kind, fast in ((str, _texts_to_ns), (int, _ints_to_ns), (float, _floats_to_ns)):
        if kind not in kinds:
            continue
        if len(kinds) == 1:
            ns = fast(values)  # type: ignore[arg-type]
        else:
            rows = [i for i, value in enumerate(values) if type(value) is kind]
            ns[rows] = fast([values[i] for i in rows])  # type: ignore[misc]
    bad: dict[int, BadEvent] = {}
    for i in np.flatnonzero((ns < MIN_NS) | (ns >= END_NS)).tolist():  # unusual forms, and those that cannot be used
        try:
            ns[i] = to_ns(values[i])
        except BadEvent as error:
            ns[i] = 0
            bad[i] = error
    return ns, bad


def _ints_to_ns(values: Sequence[int]) -> npt.NDArray[np.int64]:
    try:
        numbers = np.array(values, dtype=np.int64)
    except OverflowError:
        return np.zeros(len(values), dtype=np.int64)
    units = np.ones(len(values), dtype=np.int64)
    for bound, unit in reversed(UNITS[:-1]):
        units[numbers < bound] = unit
    usable = (numbers >= 0) & (numbers < END_NS // units)  # so that the product cannot overflow
    ns: npt.NDArray[np.int64] = np.where(usable, numbers, 0) * units
    return ns


def _floats_to_ns(values: Sequence[float]) -> npt.NDArray[np.int64]:
    """Exact for at most microsecond precision, checked by converting back; the rest is left to `to_ns`."""
    numbers = np.array(values, dtype=np.float64)
    ns = np.zeros(len(values), dtype=np.int64)
    low = MIN_NS / SECOND_NS
    high = END_NS / SECOND_NS
    for per_unit in (1e6, 1e3, 1.0):  # microseconds in the unit
        scale = 1e6 / per_unit
        inside = (numbers >= low * scale) & (numbers < high * scale)
        micros = np.rint(np.where(inside, numbers, 0.0) * per_unit)
        exact = inside & (micros / per_unit == numbers)
        ns = np.where(exact, micros.astype(np.int64) * 1_000, ns)
    return ns


def _texts_to_ns(values: Sequence[str]) -> npt.NDArray[np.int64]:
    lengths = set(map(len, values))
    if len(lengths) == 1:
        return _equal_texts_to_ns(values, lengths.pop())
    ns = np.zeros(len(values), dtype=np.int64)
    for length in sorted(lengths):
        rows = [i for i, value in enumerate(values) if len(value) == length]
        ns[rows] = _equal_texts_to_ns([values[i] for i in rows], length)
    return ns


def _equal_texts_to_ns(values: Sequence[str], length: int) -> npt.NDArray[np.int64]:
    """Texts of one length in the form 2026-01-31T12:00:00[.fraction]Z; 0 for every other form."""
    n = len(values)
    fraction = length - 21  # digits after the point
    if not (length == 20 or 1 <= fraction <= 9):
        return np.zeros(n, dtype=np.int64)
    try:
        raw = "".join(values).encode("ascii")
    except UnicodeEncodeError:
        return np.zeros(n, dtype=np.int64)
    chars = np.frombuffer(raw, dtype=np.uint8).reshape(n, length)
    form = b"0000-00-00T00:00:00" + (b"." + b"0" * fraction if fraction > 0 else b"") + b"Z"
    pattern = np.frombuffer(form, dtype=np.uint8)
    is_digit = pattern == ord("0")
    digits = (chars[:, is_digit] - ord("0")).T  # unsigned: whatever is no digit becomes 10 or more
    usable = (digits <= 9).all(axis=0) & (chars[:, ~is_digit] == pattern[~is_digit]).all(axis=1)
    wide = np.where(usable, digits, 0).astype(np.int64)

    def number(first: int, last: int) -> npt.NDArray[np.int64]:
        total: npt.NDArray[np.int64] = wide[first].copy()
        for row in wide[first + 1 : last]:
            total *= 10
            total += row
        return total

    year, month, day = number(0, 4), number(4, 6), number(6, 8)
    hour, minute, second = number(8, 10), number(10, 12), number(12, 14)
    usable &= (year >= FIRST_YEAR) & (year < END_YEAR) & (month >= 1) & (month <= 12)
    index = np.where(usable, (year - FIRST_YEAR) * 12 + month - 1, 0)
    start = _MONTH_STARTS[index]
    usable &= (day >= 1) & (day <= _MONTH_STARTS[index + 1] - start) & (hour <= 23) & (minute <= 59) & (second <= 59)
    ns = ((start + day - 1) * DAY_S + (hour * 60 + minute) * 60 + second) * SECOND_NS
    if fraction > 0:
        ns += number(14, 14 + fraction) * 10 ** (9 - fraction)
    return np.where(usable, ns, 0)
