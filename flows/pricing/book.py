"""The price book: which tariff applies to which requests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from importlib.resources import files
from typing import TypeVar

import numpy as np

from flows.pricing import genai, names
from flows.pricing.apply import apply_tariffs
from flows.pricing.gpus import GpuPrices
from flows.pricing.overlay import (
    Alias,
    ContractPrice,
    Discount,
    Entry,
    Overlay,
    TierMultiplier,
    parse_overlay,
    read_overlay,
    usd_by_kind,
)
from flows.pricing.tariff import (
    CACHE_READ,
    KINDS,
    OVERLAY,
    UNKNOWN,
    Rate,
    Sheet,
    Tariff,
    resolve_fallbacks,
)
from schemas.columns import Coded, Costs, GpuColumns, IntArray, RequestColumns

RULES = b"1"
"""Raised whenever the rules of this package change what the same prices make of the same request."""

_DEFAULT = "default_overlay.yaml"
_MAX_CACHED = 8192
_PICO_PER_TOKEN = Fraction(10**6)
_PICO_PER_USD = Fraction(10**12)

EntryT = TypeVar("EntryT", bound=Entry)


class PriceBook:
    """All prices: genai-prices' list prices, our defaults, and the user's overlay, which wins.

    Parameters
    ----------
    defaults
        The overlay shipped with Tidegauge: tier multipliers and GPU list prices.
    overlay
        The user's own.
    version
        Digest of all price data, for `price_version`.

    Examples
    --------
    >>> book = PriceBook.load(None)
    >>> len(book.version)
    12
    """

    def __init__(self, defaults: Overlay, overlay: Overlay, version: str) -> None:
        self.version = version
        self._defaults = defaults
        self._overlay = overlay
        self._dimensions: tuple[str, ...] = ("provider", "model", "model_served", "service_tier")
        if overlay.names_teams:
            self._dimensions += ("team",)
        self._tariffs: dict[tuple[str, ...], Tariff] = {}
        self._gpus = GpuPrices([*defaults.gpus, *overlay.gpus])

    @classmethod
    def load(cls, overlay: str | None) -> PriceBook:
        """Read the price data and, if given, the overlay file at this path.

        Raises
        ------
        BadSettings
            The overlay cannot be read or is wrong; with path and line.
        """
        default = files("flows.pricing").joinpath(_DEFAULT).read_bytes()
        own, raw = read_overlay(overlay) if overlay else (Overlay(), b"")
        digest = hashlib.blake2b(digest_size=6)
        for part in (RULES, *genai.fingerprint(), default, raw):
            digest.update(len(part).to_bytes(8, "big") + part)
        return cls(parse_overlay(default, _DEFAULT), own, digest.hexdigest())

    def price(self, columns: RequestColumns) -> Costs:
        """What each request of a block cost, as of its own time. The rules are in docs/prices.md."""
        index, combinations = _combinations([columns.dims[name] for name in self._dimensions], len(columns))
        return apply_tariffs(columns, [self._tariff(texts) for texts in combinations], index)

    def price_gpus(self, columns: GpuColumns) -> GpuColumns:
        """The samples with `usd_per_hour_pico` filled from the price table where it was not given."""
        return self._gpus.apply(columns)

    # ------------------------------------------------------------------ which tariff
    def _tariff(self, texts: tuple[str, ...]) -> Tariff:
        tariff = self._tariffs.get(texts)
        if tariff is None:
            tariff = self._compile(*texts)
            if len(self._tariffs) >= _MAX_CACHED:
                # Forgetting costs time only: a tariff follows from its texts alone.
                self._tariffs.clear()
            self._tariffs[texts] = tariff
        return tariff

    def _compile(self, provider: str, model: str, served: str, service_tier: str, team: str = "") -> Tariff:
        tier = names.tier_of(service_tier)
        # Vendors bill the model that answered, so it comes first.
        asked = [self._aliased(provider, name) for name in dict.fromkeys((served, model)) if name]
        listing = next((found for seller, name in asked if (found := genai.find(seller, name))), None)
        spelled = {(genai.provider_id(seller), text) for seller, name in asked for text in names.models_of(name)}
        spelled |= {(genai.provider_id(provider), text) for name in (served, model) for text in names.models_of(name)}

        def matches(entry: ContractPrice | TierMultiplier | Discount) -> bool:
            seller = genai.provider_id(entry.provider)
            return any(
                entry.provider in ("*", known) or seller == known
                for known, text in spelled
                if fnmatchcase(text, entry.model.lower())
            ) and getattr(entry, "team", None) in (None, team)

        contracts = [e for e in self._overlay.prices if matches(e) and _tier_in(e, tier)]
        discounts = [e for e in self._overlay.discounts if matches(e)]
        own_tiers = [e for e in self._overlay.tiers if matches(e) and names.tier_of(e.service_tier) == tier]
        default_tiers = [e for e in self._defaults.tiers if matches(e) and names.tier_of(e.service_tier) == tier]

        def sheet_at(at: datetime) -> Sheet:
            contract = _last(contracts, at)
            own, default = _last(own_tiers, at), _last(default_tiers, at)
            if contract is not None:
                done = contract.service_tier is not None or tier == names.STANDARD
                return _in_tier(_contract_sheet(contract), done, own or default)
            if listing is None:
                return UNKNOWN
            # A multiplier of the user's own comes before the vendor's listed tier price, a default one after it.
            listed, done = genai.sheet(listing, at, names.STANDARD if own else tier)
            sheet = _in_tier(listed, done and not own, own or default)
            discount = _last(discounts, at)
            return sheet if discount is None else _map(sheet, _discounted(discount))

        instants, cuts = genai.boundaries(listing) if listing else ([], [])
        for entry in (*contracts, *discounts, *own_tiers, *default_tiers):
            instants += [genai.day_ns(day) for day in (entry.valid_from, entry.valid_to) if day is not None]
        return Tariff.compile(instants, cuts, sheet_at)

    def _aliased(self, provider: str, model: str) -> tuple[str, str]:
        """Provider and model that the user's aliases say a name stands for."""
        name, seller = model.strip().lower(), genai.provider_id(provider)
        found: Alias | None = None
        for alias in self._overlay.aliases:
            if alias.provider in ("*", seller) or genai.provider_id(alias.provider) == seller:
                found = alias if fnmatchcase(name, alias.model.lower()) else found
        return (found.provider_priced_as or provider, found.priced_as) if found else (provider, model)


def _combinations(columns: Sequence[Coded], n: int) -> tuple[IntArray, list[tuple[str, ...]]]:
    """Distinct combinations of texts: each row's index, and the combinations."""
    key = np.zeros(n, np.int64)
    size = 1
    for column in columns:
        key = key * len(column.values) + column.codes
        size *= max(len(column.values), 1)
    if n == 0:
        return key, []
    if size <= 8 * n + 65_536:
        # Few possible combinations: a table is faster than sorting.
        present = np.zeros(size, np.bool_)
        present[key] = True
        unique = np.flatnonzero(present)
        place = np.empty(size, np.int64)
        place[unique] = np.arange(len(unique))
        index = place[key]
    elif size < 2**62:
        unique, index = np.unique(key, return_inverse=True)
    else:
        stacked = np.stack([column.codes for column in columns], axis=1)
        rows, index = np.unique(stacked, axis=0, return_inverse=True)
        texts = [tuple(c.values[code] for c, code in zip(columns, row, strict=True)) for row in rows.tolist()]
        return index.reshape(-1).astype(np.int64), texts
    found: list[tuple[str, ...]] = []
    for number in unique.tolist():
        texts_of_row: list[str] = []
        for column in reversed(columns):
            number, code = divmod(number, len(column.values))
            texts_of_row.append(column.values[code])
        found.append(tuple(reversed(texts_of_row)))
    return index, found


def _tier_in(entry: ContractPrice, tier: str) -> bool:
    return entry.service_tier is None or names.tier_of(entry.service_tier) == tier


def _last(entries: Sequence[EntryT], at: datetime) -> EntryT | None:
    """The last entry that holds at this moment."""
    return next((entry for entry in reversed(entries) if entry.active(at.date())), None)


def _map(sheet: Sheet, change: Callable[[Rate], Rate]) -> Sheet:
    return Sheet(sheet.above, tuple(change(rate) for rate in sheet.rates))


def _in_tier(sheet: Sheet, done: bool, multiplier: TierMultiplier | None) -> Sheet:
    """Turn standard prices into those of the tier, unless they already are."""
    if done:
        return sheet
    if multiplier is None:
        return _map(sheet, lambda rate: Rate(rate.prices, rate.request, rate.source, tier_known=False))
    factors = [Fraction(multiplier.multiplier)] * len(KINDS)
    if multiplier.cache_read_multiplier is not None:
        factors[CACHE_READ] = Fraction(multiplier.cache_read_multiplier)
    return _map(sheet, lambda rate: rate.scaled(factors, source=OVERLAY))


def _discounted(discount: Discount) -> Callable[[Rate], Rate]:
    factors = [1 - Fraction(discount.percent) / 100] * len(KINDS)
    return lambda rate: rate.scaled(factors, source=OVERLAY)


def _contract_sheet(entry: ContractPrice) -> Sheet:
    fee = Fraction(entry.request_usd) * _PICO_PER_USD
    current = list(usd_by_kind(entry))
    rates = [_contract_rate(current, fee)]
    for step in entry.above:
        current = [new if new is not None else old for new, old in zip(usd_by_kind(step), current, strict=True)]
        rates.append(_contract_rate(current, fee))
    return Sheet(tuple(step.input_tokens for step in entry.above), tuple(rates))


def _contract_rate(usd_per_mtok: Sequence[Decimal | None], fee: Fraction) -> Rate:
    prices = [None if p is None else Fraction(p) * _PICO_PER_TOKEN for p in usd_per_mtok]
    return Rate(resolve_fallbacks(prices), fee, OVERLAY)
