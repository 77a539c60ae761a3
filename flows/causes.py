"""The cause verdict: why a request failed, from what its answer says.

The rules are data, `cause_rules.yaml`; each names its source. This module reads them once and applies them in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal

import msgspec
import yaml

from schemas.cause import Cause
from schemas.errors import BadSettings

MESSAGE_CHARS = 2_000
"""Characters of a message that are looked at. What vendors say first decides; the rest is their quoted request."""

CACHED_VERDICTS = 4_096
"""Verdicts kept: the errors of a burst mostly read alike, apart from their numbers."""

_STATUS_CHARS = 16
"""Characters at the start of a message in which a status may stand; behind them all numbers read `0`."""

Hosting = Literal["self_hosted", "vendor"]


class _RuleText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    cause: str
    source: str
    status: list[int | str] = []
    hosting: Hosting | None = None
    quota: Literal["exhausted"] | None = None
    code: list[str] = []
    message: list[str] = []


class _RulesText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    self_hosted_providers: list[str]
    rules: list[_RuleText]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a failed request, brought into the form that rules compare."""

    status: int
    codes: frozenset[str]
    message: str
    hosting: Hosting
    quota_exhausted: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule; `None` stands for a condition that it does not name."""

    name: str
    cause: Cause
    source: str
    statuses: frozenset[int] | None
    hosting: Hosting | None
    quota_exhausted: bool
    codes: Codes | None
    message: re.Pattern[str] | None

    def fits(self, evidence: Evidence) -> bool:
        """Whether every condition holds; of codes and messages one is enough."""
        if self.statuses is not None and evidence.status not in self.statuses:
            return False
        if self.hosting is not None and evidence.hosting != self.hosting:
            return False
        if self.quota_exhausted and not evidence.quota_exhausted:
            return False
        if self.codes is None and self.message is None:
            return True
        if self.codes is not None and self.codes.match_any(evidence.codes):
            return True
        return self.message is not None and self.message.search(evidence.message) is not None


@dataclass(frozen=True, slots=True)
class Codes:
    """A list of error codes: exact ones, and ones with `*` at an end."""

    exact: frozenset[str]
    beginnings: tuple[str, ...]
    endings: tuple[str, ...]

    @classmethod
    def compile(cls, patterns: Iterable[str]) -> Codes:
        """Compile codes as the rule file writes them."""
        exact, beginnings, endings = [], [], []
        for pattern in patterns:
            plain = _plain(pattern)
            if pattern.startswith("*"):
                endings.append(plain)
            elif pattern.endswith("*"):
                beginnings.append(plain)
            else:
                exact.append(plain)
        return cls(frozenset(exact), tuple(beginnings), tuple(endings))

    def match_any(self, codes: Iterable[str]) -> bool:
        """Whether one of the codes (plain ones) is in the list."""
        return any(
            code in self.exact
            or (bool(self.beginnings) and code.startswith(self.beginnings))
            or (bool(self.endings) and code.endswith(self.endings))
            for code in codes
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """The whole rule file, compiled."""

    self_hosted: Codes
    rules: tuple[Rule, ...]

    def first(self, evidence: Evidence) -> Rule | None:
        """Return the rule that decides."""
        return next((rule for rule in self.rules if rule.fits(evidence)), None)


def classify(
    status: int,
    error_type: str | None = None,
    error_code: str | None = None,
    message: str | None = None,
    provider: str | None = None,
    ratelimit_remaining_requests: int | None = None,
    ratelimit_remaining_tokens: int | None = None,
) -> Cause:
    """Judge why a request failed.

    Parameters
    ----------
    status
        HTTP status; 0 where no answer came.
    error_type, error_code, message
        As reported; the empty string counts as not reported. Of the message the first `MESSAGE_CHARS` are read.
    provider
        Decides whether our own engines or a vendor answered.
    ratelimit_remaining_requests, ratelimit_remaining_tokens
        What was left of the quota; a negative number counts as not reported.

    Returns
    -------
    Cause
        `NONE` for a request that did not fail (status 1 to 399 and no error type), `UNKNOWN` where no rule fits.
        Never raises.

    Examples
    --------
    >>> classify(429, "insufficient_quota", provider="openai").label
    'budget'
    >>> classify(503, message="Request queue is full", provider="vllm").label
    'self_hosted_saturation'
    """
    if 0 < status < 400 and not error_type:
        return Cause.NONE
    return _verdict(
        status,
        error_type or "",
        error_code or "",
        _without_numbers(message) if message else "",
        provider or "",
        ratelimit_remaining_requests == 0 or ratelimit_remaining_tokens == 0,
    )


def _without_numbers(message: str) -> str:
    return message[:_STATUS_CHARS] + _NUMBER.sub("0", message[_STATUS_CHARS:MESSAGE_CHARS])


@lru_cache(CACHED_VERDICTS)
def _verdict(status: int, error_type: str, error_code: str, message: str, provider: str, exhausted: bool) -> Cause:
    loaded = default_rules()
    rule = loaded.first(gather(loaded, status, error_type, error_code, message, provider, exhausted))
    return Cause.UNKNOWN if rule is None else rule.cause


def gather(
    rules: Rules, status: int, error_type: str, error_code: str, message: str, provider: str, quota_exhausted: bool
) -> Evidence:
    """Bring what was reported into the form that rules compare."""
    codes = {_plain(error_type), _plain(error_code)}
    codes.update(_plain(word) for word in _WORD.findall(message) if _CODE_LIKE.search(word))
    codes.discard("")
    if status < 400:
        status = _status_in_words(error_type, error_code, message) or status
    return Evidence(
        status=status,
        codes=frozenset(codes),
        message=" ".join(message.lower().split()),
        hosting="self_hosted" if rules.self_hosted.match_any([_plain(provider)]) else "vendor",
        quota_exhausted=quota_exhausted,
    )


_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.]{3,99}")
_CODE_LIKE = re.compile(r"_|[a-z][A-Z]")
_BOUND = re.compile(r"\{0,[0-9]+\}")
_NUMBER = re.compile(r"[0-9]+")
_NOT_PLAIN = re.compile(r"[^a-z0-9]")
_STATUS_FIRST = re.compile(r"(?:error code: |error: |http error |http )?([45][0-9]{2})(?![0-9])", re.IGNORECASE)


def _plain(code: str) -> str:
    """`litellm.RateLimitError`, `rate_limit_error` and `RATE-LIMIT-ERROR` become `ratelimiterror`."""
    name = code[:200].split(":", 1)[0].rsplit("#", 1)[-1].rstrip(".").rsplit(".", 1)[-1]
    return _NOT_PLAIN.sub("", name.lower())


def _status_in_words(error_type: str, error_code: str, message: str) -> int | None:
    """Status that a client library wrote into the error's type, code or the start of its message."""
    for text in (error_type, error_code):
        if len(text) == 3 and _STATUS_FIRST.fullmatch(text):
            return int(text)
    found = _STATUS_FIRST.match(message)
    return int(found[1]) if found else None


@cache
def default_rules() -> Rules:
    """Return the rules that ship with us, read and compiled once."""
    return load_rules(files("flows").joinpath("cause_rules.yaml").read_text(encoding="utf-8"))


def load_rules(text: str) -> Rules:
    """Read and compile a rule file.

    Raises
    ------
    BadSettings
        Not YAML, an unknown key, cause or status, two rules of one name, or a pattern with an unbounded repetition.
    """
    try:
        read = msgspec.convert(yaml.safe_load(text), _RulesText)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise BadSettings(f"cause rules: {error}") from None
    names = [rule.name for rule in read.rules]
    for name in names:
        if names.count(name) > 1:
            raise BadSettings(f"cause rules: two rules are named {name!r}")
    return Rules(Codes.compile(read.self_hosted_providers), tuple(_compile(rule) for rule in read.rules))


def _compile(rule: _RuleText) -> Rule:
    by_label = {cause.label: cause for cause in Cause if cause is not Cause.NONE}
    if rule.cause not in by_label:
        raise BadSettings(f"cause rules: {rule.name}: no cause {rule.cause!r}; there are {', '.join(by_label)}")
    if not (rule.status or rule.code or rule.message):
        raise BadSettings(f"cause rules: {rule.name}: a rule needs a status, a code or a message")
    return Rule(
        name=rule.name,
        cause=by_label[rule.cause],
        source=rule.source,
        statuses=_statuses(rule) if rule.status else None,
        hosting=rule.hosting,
        quota_exhausted=rule.quota is not None,
        codes=Codes.compile(rule.code) if rule.code else None,
        message=_alternatives(rule.name, rule.message) if rule.message else None,
    )


def _statuses(rule: _RuleText) -> frozenset[int]:
    found: set[int] = set()
    for entry in rule.status:
        first, _, last = str(entry).partition("-")
        if not (first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first) <= 999):
            raise BadSettings(f"cause rules: {rule.name}: {entry!r} is no status and no range of statuses")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _alternatives(name: str, patterns: Sequence[str]) -> re.Pattern[str]:
    for pattern in patterns:
        if _NUMBER.search(_BOUND.sub("", pattern)):
            raise BadSettings(f"cause rules: {name}: numbers of a message cannot be matched, as in {pattern!r}")
        if "*" in pattern or "+" in pattern:
            raise BadSettings(f"cause rules: {name}: write {{0,40}} instead of * or + in {pattern!r}")
    try:
        return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    except re.error as error:
        raise BadSettings(f"cause rules: {name}: {error}") from None
