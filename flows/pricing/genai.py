"""List prices from genai-prices: the data bundled with the package, offline and with history.

Which price holds when is genai-prices' own decision (`ModelInfo.get_prices`); here it is only asked at one moment of
every stretch of time in which its answer cannot change.

References
----------
https://github.com/pydantic/genai-prices, package `genai_prices`: `types.py` (conditional prices, price variants),
`data.py` (prices), `data_snapshot.py` (matching of providers).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from importlib.resources import files
from typing import NamedTuple

from genai_prices import types
from genai_prices.data import providers as PROVIDERS  # noqa: N812 - a constant of theirs
from genai_prices.data_snapshot import find_provider_by_id

from flows.pricing import names
from flows.pricing.tariff import DAY_NS, GENAI, Rate, Sheet, resolve_fallbacks

_PRICE_KEYS = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok", "output_reasoning_mtok")
"""Price keys by `flows.pricing.tariff.KINDS`. A cache write counts as a five-minute one: our events tell no more."""

_REQUEST_KEY = "requests_kcount"
_PICO_PER_TOKEN = Fraction(10**12, 10**6)
"""Pico-USD per token that one USD per million tokens makes."""
_PICO_PER_REQUEST = Fraction(10**12, 10**3)

_CONTEXTS: dict[str, dict[str, str]] = {
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
"""Service tier to the request context that selects genai-prices' price variants."""

_DAY_ZERO = date(1970, 1, 1)
_FIRST_DAY, _LAST_DAY = date(1900, 1, 1), date(2250, 1, 1)
"""No event lies outside; nanoseconds of days far outside (`9999-12-31`, "for ever") leave int64."""


class Listing(NamedTuple):
    """A model in the price data, and the provider through which it is sold."""

    provider: types.Provider
    model: types.ModelInfo


def provider_id(provider: str) -> str:
    """Id of a provider in the price data, or the name itself where it has none."""
    name = provider.strip().lower()
    if name in names.SELF_HOSTED:
        return name
    found = find_provider_by_id(PROVIDERS, names.listed_provider(name)) if name not in names.ROUTERS else None
    return found.id if found else name


def find(provider: str, model: str) -> Listing | None:
    """Look a model up under every spelling of its name."""
    name = provider_id(provider)
    if name in names.ROUTERS:
        return _find_routed(model)
    sellers = [p for p in PROVIDERS if p.id == name]
    return _first_match(sellers[0], model) if sellers else None


def _find_routed(model: str) -> Listing | None:
    """Without a vendor: the prefix (`openai/gpt-4o`) names it, otherwise the model's own name does."""
    prefix, slash, rest = model.strip().lower().partition("/")
    if slash and any(p.id == names.listed_provider(prefix) for p in PROVIDERS):
        return find(prefix, rest)
    for spelling in names.models_of(model):
        for seller in PROVIDERS:
            if seller.model_match is not None and seller.model_match.is_match(spelling):
                return _first_match(seller, spelling)
    return None


def _first_match(seller: types.Provider, model: str) -> Listing | None:
    for spelling in names.models_of(model):
        found = seller.find_model(spelling, all_providers=PROVIDERS)
        if found is not None:
            return Listing(seller, found)
    return None


def boundaries(listing: Listing) -> tuple[list[int], list[int]]:
    """Moments (ns since the epoch) and times of day (ns since midnight UTC) at which the price may change."""
    instants: list[int] = []
    cuts: list[int] = []
    for constraint in _constraints(listing.model):
        if isinstance(constraint, types.StartDateConstraint):
            instants.append(day_ns(constraint.start_date))
        elif isinstance(constraint, types.TimeOfDateConstraint):
            cuts += [_of_day_ns(constraint.start_time), _of_day_ns(constraint.end_time)]
    return instants, cuts


def sheet(listing: Listing, at: datetime, tier: str) -> tuple[Sheet, bool]:
    """Prices at one moment, and whether they are those of the service tier (otherwise: the standard prices)."""
    context = _context_of(listing, at, tier)
    prices = listing.model.get_prices(at, context)
    known = prices.__dict__
    if not known and listing.model.id.endswith(":free"):
        # A listing without prices says "no price known"; only where the name says so it says "free".
        known = dict.fromkeys(_PRICE_KEYS, Decimal(0))
    above = sorted({step.start for p in known.values() if isinstance(p, types.TieredPrices) for step in p.tiers})
    rates = tuple(_rate(known, tokens) for tokens in (0, *(start + 1 for start in above)))
    return Sheet(tuple(above), rates), tier == names.STANDARD or context is not None


def fingerprint() -> Iterator[bytes]:
    """The bytes of the price data."""
    package = files("genai_prices")
    for name in ("data.py", "data_units.py"):
        yield package.joinpath(name).read_bytes()


def day_ns(day: date) -> int:
    """Midnight UTC of a day, in nanoseconds since the epoch."""
    return (min(max(day, _FIRST_DAY), _LAST_DAY) - _DAY_ZERO).days * DAY_NS


def _constraints(model: types.ModelInfo) -> Iterator[object]:
    if not isinstance(model.prices, types.ModelPrice):
        yield from (conditional.constraint for conditional in model.prices)
    yield from (variant.constraint for variant in model.price_variants or ())


def _of_day_ns(value: time) -> int:
    """Time of day in UTC; naive ones are UTC, as genai-prices reads them."""
    moment = datetime.combine(date(2000, 1, 1), value)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return ((moment.hour * 60 + moment.minute) * 60 + moment.second) * 1_000_000_000


def _context_of(listing: Listing, at: datetime, tier: str) -> dict[str, str] | None:
    """Request context under which this model has prices for the tier at that moment; None where it has none.

    A seller that falls back to another vendor's listing does not take over that vendor's tiers.
    """
    if tier == names.STANDARD or not any(listing.model is own for own in listing.provider.models):
        return None
    context = _CONTEXTS.get(tier, {"service_tier": tier})
    for variant in listing.model.price_variants or ():
        applies = all(context.get(key) == value for key, value in variant.when.items())
        if applies and (variant.constraint is None or variant.constraint.active(at)):
            return context
    return None


def _rate(known: dict[str, Decimal | types.TieredPrices | None], tokens: int) -> Rate:
    prices = [_at(known.get(key), tokens) for key in _PRICE_KEYS]
    fee = _at(known.get(_REQUEST_KEY), tokens)
    return Rate(
        resolve_fallbacks([None if p is None else p * _PICO_PER_TOKEN for p in prices]),
        Fraction(0) if fee is None else fee * _PICO_PER_REQUEST,
        GENAI,
    )


def _at(price: Decimal | types.TieredPrices | None, tokens: int) -> Fraction | None:
    if isinstance(price, types.TieredPrices):
        steps: Sequence[types.Tier] = [step for step in price.tiers if tokens > step.start]
        return Fraction(steps[-1].price if steps else price.base)
    return None if price is None else Fraction(price)
