"""The price overlay: a YAML file with contract prices, discounts, tier multipliers, aliases and GPU prices.

Numbers are read as the text that stands in the file, so `3.1` means 3.1 and not its nearest binary fraction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from schemas.errors import BadSettings

MAX_USD = Decimal(1_000_000)
"""Upper bound of any price; more is a slip of the decimal point."""
MAX_TOKENS = 2**53
"""Largest token count that an event may carry."""
MAX_PLACES = 12
"""Decimal places that a price may have."""

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all entries share: where the figure comes from, and when it holds ([valid_from, valid_to), UTC days)."""

    source: str
    """URL or contract."""
    checked: date
    """Day on which somebody last compared the figure with its source."""
    valid_from: date | None = None
    valid_to: date | None = None
    note: str = ""

    def active(self, day: date) -> bool:
        """Whether the entry holds on this day."""
        return (self.valid_from is None or self.valid_from <= day) and (self.valid_to is None or day < self.valid_to)


class Above(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices of requests with more than `input_tokens` input tokens; kinds left out keep the entry's price."""

    input_tokens: int
    input_usd_per_mtok: Decimal | None = None
    cache_read_usd_per_mtok: Decimal | None = None
    cache_write_usd_per_mtok: Decimal | None = None
    output_usd_per_mtok: Decimal | None = None
    reasoning_usd_per_mtok: Decimal | None = None


class ContractPrice(Entry, frozen=True, kw_only=True):
    """A price that takes the place of the list price, in USD per million tokens.

    Kinds left out are charged as what contains them: cache as input, reasoning as output.
    """

    model: str
    """Name or pattern (`*`, `?`) of the model asked for or served."""
    provider: str = "*"
    team: str | None = None
    service_tier: str | None = None
    """The tier this price is for; without it the tier multipliers apply to it."""
    input_usd_per_mtok: Decimal | None = None
    cache_read_usd_per_mtok: Decimal | None = None
    cache_write_usd_per_mtok: Decimal | None = None
    output_usd_per_mtok: Decimal | None = None
    reasoning_usd_per_mtok: Decimal | None = None
    request_usd: Decimal = Decimal(0)
    above: list[Above] = []


def usd_by_kind(entry: ContractPrice | Above) -> tuple[Decimal | None, ...]:
    """Prices per million tokens in the order of `flows.pricing.tariff.KINDS`."""
    return (
        entry.input_usd_per_mtok,
        entry.cache_read_usd_per_mtok,
        entry.cache_write_usd_per_mtok,
        entry.output_usd_per_mtok,
        entry.reasoning_usd_per_mtok,
    )


class TierMultiplier(Entry, frozen=True, kw_only=True):
    """What a service tier costs, as a multiple of the standard price."""

    service_tier: str
    multiplier: Decimal
    cache_read_multiplier: Decimal | None = None
    """For cache reads, where it differs."""
    provider: str = "*"
    model: str = "*"


class Discount(Entry, frozen=True, kw_only=True):
    """A negotiated percentage off list prices; contract prices are already negotiated and stay."""

    percent: Decimal
    provider: str = "*"
    model: str = "*"
    team: str | None = None


class Alias(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name of our own (an Azure deployment, a gateway's model group) and the model it stands for."""

    model: str
    priced_as: str
    provider: str = "*"
    provider_priced_as: str | None = None


class GpuPrice(Entry, frozen=True, kw_only=True):
    """What one whole GPU costs per hour."""

    gpu_model: str
    """Name or pattern, as the driver reports it."""
    usd_per_hour: Decimal


class Overlay(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole overlay file. Where several entries match, the last one decides."""

    prices: list[ContractPrice] = []
    tiers: list[TierMultiplier] = []
    discounts: list[Discount] = []
    aliases: list[Alias] = []
    gpus: list[GpuPrice] = []

    @property
    def names_teams(self) -> bool:
        """Whether any price depends on the team."""
        return any(p.team is not None for p in self.prices) or any(d.team is not None for d in self.discounts)


def read_overlay(path: str) -> tuple[Overlay, bytes]:
    """Read an overlay file; also returns its bytes, for the version.

    Raises
    ------
    BadSettings
        With path and line of what is wrong.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise BadSettings(
            f"prices: cannot read {path} ({error.strerror}). Check pricing.overlay in the settings."
        ) from None
    return parse_overlay(raw, Path(path).name), raw


def parse_overlay(raw: bytes, name: str) -> Overlay:
    """Parse and check an overlay.

    Raises
    ------
    BadSettings
        With path and line of what is wrong.
    """
    try:
        root = yaml.compose(raw.decode(), Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise BadSettings(f"prices: {name} is not UTF-8 text. Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        raise BadSettings(
            f"prices: not valid YAML: {getattr(error, 'problem', None) or 'cannot be parsed'} ({where})."
        ) from None
    except RecursionError:
        raise BadSettings(f"prices: {name} is nested too deeply. The fields are in docs/prices.md.") from None
    if root is None:
        return Overlay()
    try:
        overlay = msgspec.convert(_plain(root, name), Overlay, strict=False)
    except RecursionError:
        raise BadSettings(f"prices: {name} refers to itself. Remove the alias (`*name`).") from None
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        raise _bad(text, path.strip("`") or "$", root, name) from None
    for path, problem in _problems(overlay):
        raise _bad(problem, path, root, name)
    return overlay


def _plain(node: yaml.Node, name: str) -> Any:
    """The document with all scalars as text, null excepted."""
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise BadSettings(f"prices: a key must be a word ({name}, line {key.start_mark.line + 1}).")
            if key.value in out:
                raise BadSettings(
                    f"prices: `{key.value}` stands twice ({name}, line {key.start_mark.line + 1}). Remove one of them."
                )
            out[key.value] = _plain(value, name)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, name) for item in node.value]
    return None if node.tag == "tag:yaml.org,2002:null" else node.value


def _problems(overlay: Overlay) -> Iterator[tuple[str, str]]:
    """What the types cannot say: path and problem."""
    for section in ("prices", "tiers", "discounts", "gpus"):
        for i, entry in enumerate(getattr(overlay, section)):
            path = f"$.{section}[{i}]"
            if entry.valid_from and entry.valid_to and entry.valid_to <= entry.valid_from:
                yield f"{path}.valid_to", "`valid_to` must lie after `valid_from`"
            if not entry.source.strip():
                yield f"{path}.source", "`source` must not be empty"
            yield from _amounts(entry, path)
    for i, price in enumerate(overlay.prices):
        path = f"$.prices[{i}]"
        if usd_by_kind(price) == (None,) * 5 and not price.request_usd:
            yield path, "expected at least one price"
        for j, step in enumerate(price.above):
            yield from _amounts(step, f"{path}.above[{j}]")
            if step.input_tokens > MAX_TOKENS:
                yield f"{path}.above[{j}].input_tokens", f"expected at most {MAX_TOKENS}"
            if step.input_tokens <= (price.above[j - 1].input_tokens if j else 0):
                yield f"{path}.above[{j}].input_tokens", "thresholds must be above 0 and ascending"


def _amounts(entry: Struct, path: str) -> Iterator[tuple[str, str]]:
    for field in entry.__struct_fields__:
        value = getattr(entry, field)
        if not isinstance(value, Decimal):
            continue
        top = Decimal(100) if field == "percent" or field.endswith("multiplier") else MAX_USD
        exponent = value.as_tuple().exponent
        if not value.is_finite() or not 0 <= value <= top:
            yield f"{path}.{field}", f"expected a number from 0 to {top}"
        elif isinstance(exponent, int) and exponent < -MAX_PLACES:
            yield f"{path}.{field}", f"expected at most {MAX_PLACES} decimal places"


def _bad(problem: str, path: str, root: yaml.Node, name: str) -> BadSettings:
    unknown = _UNKNOWN.search(problem)
    line = _line(root, path, unknown.group(1) if unknown else None)
    return BadSettings(f"prices: {problem} - at `{path}` ({name}, line {line}). The fields are in docs/prices.md.")


def _line(node: yaml.Node, path: str, key: str | None) -> int:
    """Line of the value at a path such as `$.prices[2].model`, or of the key under it; as near as the path leads."""
    line = node.start_mark.line + 1
    for name, index in [*_STEP.findall(path), *([(key, "")] if key else [])]:
        if isinstance(node, yaml.SequenceNode) and index and int(index) < len(node.value):
            node = node.value[int(index)]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            found = [pair for pair in node.value if pair[0].value == name]
            if not found:
                return line
            line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line
