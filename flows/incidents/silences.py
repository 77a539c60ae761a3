"""Silences and maintenance windows: incidents that are recorded, but not sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SilenceRule:
    """One silence.

    Parameters
    ----------
    matchers
        `kind` and dimensions with the value they must have; a value that ends in `*` matches any rest.
    starts_ns, ends_ns
        Event time during which it holds; None is open-ended.
    """

    matchers: Mapping[str, str]
    starts_ns: int | None = None
    ends_ns: int | None = None


class Silences:
    """All configured silences."""

    def __init__(self, rules: Sequence[SilenceRule]) -> None:
        self.rules = list(rules)

    def match(self, kind: str, dims: Mapping[str, str], now_ns: int) -> bool:
        """Whether an incident of that kind and series is silenced at that event time."""
        known = {**dims, "kind": kind}
        return any(
            (rule.starts_ns is None or now_ns >= rule.starts_ns)
            and (rule.ends_ns is None or now_ns < rule.ends_ns)
            and all(_fits(pattern, known.get(name, "")) for name, pattern in rule.matchers.items())
            for rule in self.rules
        )


def _fits(pattern: str, value: str) -> bool:
    return value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern
