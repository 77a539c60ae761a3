"""Exact money: int64 pico-USD (1e-12 USD) in columns, `Decimal` at the edges.

Integer sums do not depend on the order of merging, so a replay gives the same bill to the last digit. An int64
holds up to 9.2 million USD, enough for one series and window (`flows.windows.sums` stops there instead of overflowing).
"""

from __future__ import annotations

from decimal import Decimal

PICO_PER_USD = 1_000_000_000_000
"""Pico-USD in one US dollar."""

NO_MONEY = -1
"""Marks an amount that is not known (SQL NULL); real amounts are never negative."""


def to_pico(usd: Decimal | int | str) -> int:
    """Convert US dollars to pico-USD, rounding half to even.

    Examples
    --------
    >>> to_pico("0.000003")
    3000000
    """
    return int((Decimal(usd) * PICO_PER_USD).to_integral_value())


def to_usd(pico: int) -> Decimal:
    """Convert pico-USD to US dollars, exactly.

    Examples
    --------
    >>> to_usd(3_000_000)
    Decimal('0.000003000000')
    """
    return Decimal(int(pico)).scaleb(-12)
