"""Series: what is watched. A series is one grouping set's dimensions with their values."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Series(NamedTuple):
    """Identity of one series.

    Parameters
    ----------
    stream
        `requests` or `gpus`.
    dims
        Names of the grouping set's dimensions, in configured order; empty for the total.
    values
        Their values, parallel to `dims`.
    """

    stream: str
    dims: tuple[str, ...]
    values: tuple[str, ...]

    def as_dict(self) -> dict[str, str]:
        """Dimensions with their values."""
        return dict(zip(self.dims, self.values, strict=True))

    def key(self) -> str:
        """The series as one readable text, unique among series."""
        inside = ",".join(
            f"{d}={v.replace(chr(92), chr(92) * 2).replace(',', chr(92) + ',')}"
            for d, v in zip(self.dims, self.values, strict=True)
        )
        return f"{self.stream}{{{inside}}}"

    def identity(self) -> int:
        """Stable 64-bit hash of `key`, the same on every machine and version: routes series to shards."""
        return int.from_bytes(hashlib.blake2b(self.key().encode(), digest_size=8).digest(), "big")

    def contains(self, other: Series) -> bool:
        """Whether every request of `other` also belongs to this series (its dimensions are a subset, equal there)."""
        mine, theirs = self.as_dict(), other.as_dict()
        return self.stream == other.stream and all(theirs.get(d) == v for d, v in mine.items())
