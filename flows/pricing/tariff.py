"""Tariffs: what one model costs, exact, for every moment and prompt length, as arrays.

All the rules a price can depend on (start dates, time of day, context tiers, contract validity) are constant between
a few boundaries. So a tariff is a small grid, time interval x part of the day x prompt length, that is filled once by
asking for the price at one moment of every cell; pricing a block is then only a lookup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from schemas.columns import IntArray

KINDS: tuple[str, ...] = ("input", "cache_read", "cache_write", "output", "reasoning")
"""Token kinds, in the order of all price tuples. They do not overlap: `input` is neither read from nor written to the
cache, `output` is without reasoning."""

INPUT, CACHE_READ, CACHE_WRITE, OUTPUT, REASONING = range(5)

DAY_NS = 86_400_000_000_000
SOURCES: tuple[str, ...] = ("", "genai-prices", "overlay", "event")
"""Values of `Costs.source`."""
NO_SOURCE, GENAI, OVERLAY, EVENT = range(4)

_MAX_SUM = 2**62
"""Bound on the sum of one request's parts (at the rate's scale), so that int64 arithmetic cannot overflow."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Rate:
    """Prices in one cell of the grid.

    Parameters
    ----------
    prices
        Pico-USD per token by `KINDS`; None where no price is known.
    request
        Pico-USD per request beside its tokens.
    source
        Code of `SOURCES`.
    tier_known
        False where the request's service tier has no known price and the standard price stands in.
    """

    prices: tuple[Fraction | None, ...]
    request: Fraction = Fraction(0)
    source: int = NO_SOURCE
    tier_known: bool = True

    def scaled(self, factors: Sequence[Fraction], *, source: int | None = None) -> Rate:
        """The rate with each kind's price multiplied; the fee per request follows `input`."""
        prices = tuple(None if p is None else p * f for p, f in zip(self.prices, factors, strict=True))
        return Rate(prices, self.request * factors[INPUT], self.source if source is None else source, self.tier_known)


NOTHING = Rate((None,) * len(KINDS))
"""No price known at all."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Prices at one moment, by prompt length: `rates[i]` holds above `above[i - 1]` input tokens.

    Crossing a threshold reprices all tokens of the request, as vendors do.
    """

    above: tuple[int, ...]
    rates: tuple[Rate, ...]

    def at(self, input_tokens: int) -> Rate:
        """Rate of a prompt of this length."""
        return self.rates[sum(input_tokens > start for start in self.above)]


UNKNOWN = Sheet((), (NOTHING,))


def resolve_fallbacks(prices: Sequence[Fraction | None]) -> tuple[Fraction | None, ...]:
    """Charge kinds without their own price as what contains them: cache as input, reasoning as output.

    A vendor that lists no cache price bills these tokens as ordinary input (and so does genai-prices).
    """
    full = list(prices)
    for kind, containing in ((CACHE_READ, INPUT), (CACHE_WRITE, INPUT), (REASONING, OUTPUT)):
        if full[kind] is None:
            full[kind] = full[containing]
    return tuple(full)


@dataclass(frozen=True, slots=True)
class RateArrays:
    """Rates as arrays; shape (r,) or (r, len(KINDS)).

    `prices` and `saving` are integers at 1 / `divisor` pico-USD per token. `limit` is the number of tokens up to which
    int64 arithmetic is safe; -1 sends every request of the rate through exact Python arithmetic.
    """

    prices: IntArray
    saving: IntArray
    request: IntArray
    divisor: IntArray
    limit: IntArray
    priced: npt.NDArray[np.bool_]
    tier_known: npt.NDArray[np.bool_]
    source: npt.NDArray[np.int32]

    @classmethod
    def of(cls, rates: Sequence[Rate]) -> RateArrays:
        """Build from exact rates."""
        n = len(rates)
        out = cls(
            prices=np.zeros((n, len(KINDS)), np.int64),
            saving=np.zeros(n, np.int64),
            request=np.zeros(n, np.int64),
            divisor=np.ones(n, np.int64),
            limit=np.full(n, -1, np.int64),
            priced=np.array([[p is not None for p in r.prices] for r in rates], bool).reshape(n, len(KINDS)),
            tier_known=np.array([r.tier_known for r in rates], bool),
            source=np.array([r.source for r in rates], np.int32),
        )
        for row, rate in enumerate(rates):
            known = [p or Fraction(0) for p in rate.prices]
            power = _decimal_places(known)
            numbers = [int(p * 10**power) for p in known]
            fee = round(rate.request)
            out.request[row] = min(fee, _MAX_SUM)
            if power <= 18 and max(numbers) < _MAX_SUM and fee < _MAX_SUM // 2:
                out.prices[row] = numbers
                out.saving[row] = max(numbers[INPUT] - numbers[CACHE_READ], 0)
                out.divisor[row] = 10**power
                out.limit[row] = _MAX_SUM // (2 * max(*numbers, 1))
        return out


@dataclass(frozen=True, slots=True)
class Tariff:
    """What one model (as one team uses it, at one service tier) costs at any time.

    `instants` and `cuts` are the boundaries in nanoseconds since the epoch and since midnight UTC (the first cut is
    0), `above` those of the prompt length. `rates` and `arrays` are in (instant, cut, above) order.
    """

    instants: IntArray
    cuts: IntArray
    above: tuple[int, ...]
    rates: tuple[Rate, ...]
    arrays: RateArrays

    @classmethod
    def compile(cls, instants: Sequence[int], cuts: Sequence[int], sheet_at: Callable[[datetime], Sheet]) -> Tariff:
        """Fill the grid. `instants` must lie on midnights UTC, so that every part of the day occurs in every cell."""
        starts = sorted(set(instants))
        parts = sorted({0, *cuts})
        first = starts[0] - DAY_NS if starts else 0
        sheets = [sheet_at(_moment(start + part)) for start in [first, *starts] for part in parts]
        above = tuple(sorted({start for sheet in sheets for start in sheet.above}))
        rates = tuple(sheet.at(tokens) for sheet in sheets for tokens in (0, *(start + 1 for start in above)))
        return cls(np.array(starts, np.int64), np.array(parts, np.int64), above, rates, RateArrays.of(rates))

    @property
    def tiers(self) -> int:
        """Number of rates per cell of time."""
        return len(self.above) + 1

    def cells(self, at_ns: IntArray) -> IntArray:
        """Index of the first rate of each moment's cell. Shape (n,) in, (n,) out."""
        interval = np.searchsorted(self.instants, at_ns, side="right")
        part = np.searchsorted(self.cuts, at_ns % DAY_NS, side="right") - 1
        return (interval * len(self.cuts) + part) * self.tiers

    def constant_cell(self, first_ns: int, last_ns: int) -> int | None:
        """The cell of all moments from `first_ns` to `last_ns`, or None where they may lie in several."""
        if len(self.cuts) > 1 and first_ns // DAY_NS != last_ns // DAY_NS:
            return None
        ends = self.cells(np.array([first_ns, last_ns], np.int64))
        return int(ends[0]) if ends[0] == ends[1] else None


def _decimal_places(numbers: Sequence[Fraction]) -> int:
    """Smallest p for which all numbers are whole at 10**-p. All are products of decimals, so there is one."""
    places = 0
    while any(10**places % number.denominator for number in numbers):
        places += 1
    return places


def _moment(at_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_ns // 1000)
