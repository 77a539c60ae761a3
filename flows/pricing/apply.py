"""The arithmetic of pricing a block: integers only, exact, vectorised.

Each part of each request is `tokens x price`, rounded half to even to a whole pico-USD; list prices are whole numbers
of pico-USD per token almost without exception, so almost nothing is rounded. Requests whose product could leave int64
are computed with Python's integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from flows.pricing.tariff import (
    CACHE_READ,
    CACHE_WRITE,
    EVENT,
    INPUT,
    KINDS,
    NO_SOURCE,
    OUTPUT,
    REASONING,
    SOURCES,
    Rate,
    RateArrays,
    Tariff,
)
from schemas.columns import GIVEN, MISSING, PARTIAL, PRICED, UNPRICED, Coded, Costs, IntArray, RequestColumns

MAX_COST_PICO = 10**18
"""One million USD, as for costs that producers give: a dearer single request is a broken token count."""

BoolArray = npt.NDArray[np.bool_]


def apply_tariffs(columns: RequestColumns, tariffs: Sequence[Tariff], index: IntArray) -> Costs:
    """Price a block.

    Parameters
    ----------
    columns
        The block, n requests.
    tariffs
        The distinct tariffs of the block.
    index
        Tariff of each request, shape (n,).
    """
    n = len(columns)
    tokens, prompt = _token_kinds(columns)
    used = prompt + tokens[OUTPUT] + tokens[REASONING]
    rates, arrays, row = _rates_of(columns.at_ns, prompt, tariffs, index)

    charged = ~(columns.failed & (used == 0))  # a failed request that used nothing costs nothing
    parts = np.empty((len(KINDS), n), np.int64)
    divisor = arrays.divisor[row]
    rounded = np.flatnonzero(divisor > 1)
    for kind in range(len(KINDS)):
        parts[kind] = tokens[kind] * arrays.prices[:, kind][row]
        _divide(parts[kind], divisor, rounded)
    fee = np.where(columns.failed, 0, arrays.request[row])
    parts[INPUT] += fee

    missed_tokens = np.minimum(columns.prefix_tokens, tokens[:3].sum(axis=0)) - np.maximum(columns.cache_read_tokens, 0)
    missed_tokens = np.where(columns.prefix_repeated & ~columns.failed, np.maximum(missed_tokens, 0), 0)
    missed = missed_tokens * arrays.saving[row]
    _divide(missed, divisor, rounded)

    total = parts.sum(axis=0)
    implausible: BoolArray = np.greater(total, MAX_COST_PICO)
    for i in np.flatnonzero(used > arrays.limit[row]).tolist():
        exact = [_exact(int(tokens[kind, i]), rates[row[i]], kind) for kind in range(len(KINDS))]
        exact[INPUT] += int(fee[i])
        implausible[i] = sum(exact) > MAX_COST_PICO
        if not implausible[i]:
            parts[:, i], total[i] = exact, sum(exact)
            missed[i] = _exact_saving(int(missed_tokens[i]), rates[row[i]])

    status, unknown = _status(columns, tokens, arrays, row, charged)
    source = arrays.source[row]
    silent = _no_usage(columns) & ~columns.failed
    parts[:, unknown | implausible | silent] = 0
    missed[unknown | implausible] = 0
    status[(silent | implausible) & (status == PRICED)] = PARTIAL
    total[unknown | implausible | silent] = MISSING
    listed: BoolArray = np.any(arrays.priced, axis=1).reshape(-1)
    source[(status == UNPRICED) | (~charged & ~listed[row])] = NO_SOURCE

    given = columns.cost_given_pico != MISSING
    status[given] = GIVEN
    total[given] = columns.cost_given_pico[given]
    source[given] = EVENT
    return Costs(
        status=status,
        total_pico=total,
        input_pico=parts[INPUT],
        cache_read_pico=parts[CACHE_READ],
        cache_write_pico=parts[CACHE_WRITE],
        output_pico=parts[OUTPUT],
        reasoning_pico=parts[REASONING],
        missed_cache_pico=missed,
        source=Coded(source, list(SOURCES)),
    )


def _token_kinds(columns: RequestColumns) -> tuple[IntArray, IntArray]:
    """Tokens by `KINDS`, shape (5, n), and the whole prompt, shape (n,). Counts that were not reported count 0.

    Where a producer's counts contradict each other, no kind becomes negative.
    """
    read = np.maximum(columns.cache_read_tokens, 0)
    write = np.maximum(columns.cache_write_tokens, 0)
    reasoning = np.maximum(columns.reasoning_tokens, 0)
    plain = np.maximum(columns.input_tokens - read - write, 0)
    output = np.maximum(columns.output_tokens - reasoning, 0)
    return np.stack([plain, read, write, output, reasoning]), plain + read + write


def _rates_of(
    at_ns: IntArray, prompt: IntArray, tariffs: Sequence[Tariff], index: IntArray
) -> tuple[list[Rate], RateArrays, IntArray]:
    """All rates of the block, exact and as arrays, and the number of each request's rate."""
    if len(tariffs) == 1:
        arrays = tariffs[0].arrays
    else:
        all_arrays = [tariff.arrays for tariff in tariffs]
        arrays = RateArrays(
            *(
                np.concatenate([getattr(a, name) for a in all_arrays])
                if all_arrays
                else getattr(RateArrays.of(()), name)
                for name in RateArrays.__dataclass_fields__
            )
        )
    first, last = (int(at_ns.min()), int(at_ns.max())) if len(at_ns) else (0, 0)
    base = np.zeros(len(tariffs), np.int64)
    moving: list[int] = []
    steps = max((len(tariff.above) for tariff in tariffs), default=0)
    above = np.full((steps, len(tariffs)), np.iinfo(np.int64).max, np.int64)
    rates: list[Rate] = []
    for number, tariff in enumerate(tariffs):
        cell = tariff.constant_cell(first, last)
        base[number] = len(rates) + (cell or 0)
        if cell is None:
            moving.append(number)
        above[: len(tariff.above), number] = tariff.above
        rates += tariff.rates
    row = base[index]
    for number in moving:
        mine = np.flatnonzero(index == number)
        row[mine] += tariffs[number].cells(at_ns[mine])
    longest = int(prompt.max(initial=0))
    for starts in above:
        if longest > starts.min():
            row += prompt > starts[index]
    return rates, arrays, row


def _divide(values: IntArray, divisor: IntArray, rows: npt.NDArray[np.intp]) -> None:
    """Divide some rows in place, rounding half to even."""
    if len(rows):
        by = divisor[rows]
        quotient, rest = np.divmod(values[rows], by)
        half = by // 2
        quotient += (rest > half) | ((rest == half) & (quotient % 2 == 1))
        values[rows] = quotient


def _exact(tokens: int, rate: Rate, kind: int) -> int:
    price = rate.prices[kind]
    return 0 if price is None else round(tokens * price)  # Fraction rounds half to even


def _exact_saving(tokens: int, rate: Rate) -> int:
    dear, cheap = rate.prices[INPUT], rate.prices[CACHE_READ]
    return 0 if dear is None or cheap is None else round(tokens * max(dear - cheap, Fraction(0)))


def _no_usage(columns: RequestColumns) -> BoolArray:
    """Requests that reported neither input nor output, of any kind."""
    counts = (
        columns.input_tokens,
        columns.output_tokens,
        columns.cache_read_tokens,
        columns.cache_write_tokens,
        columns.reasoning_tokens,
    )
    return np.asarray(np.logical_and.reduce([count == MISSING for count in counts]))


def _status(
    columns: RequestColumns, tokens: IntArray, arrays: RateArrays, row: IntArray, charged: BoolArray
) -> tuple[npt.NDArray[np.uint8], BoolArray]:
    """Pricing status before given costs and missing usage, and the rows without any known price."""
    status = np.full(len(columns), PRICED, np.uint8)
    unknown = np.zeros(len(columns), np.bool_)
    if not arrays.priced.all():
        present = tokens > 0
        priced = arrays.priced.T[:, row]
        gap = (present & ~priced).any(axis=0)
        anything = np.where(present.any(axis=0), (present & priced).any(axis=0), priced.any(axis=0))
        unknown = charged & ~anything & (arrays.request[row] == 0)
        status[charged & gap] = PARTIAL
        status[unknown] = UNPRICED
    if not arrays.tier_known.all():
        status[charged & ~arrays.tier_known[row] & (status == PRICED)] = PARTIAL
    return status, unknown
