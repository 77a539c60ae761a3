"""What a sink is: it accepts a batch or says why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

Row_contra = TypeVar("Row_contra", contravariant=True)


class Sink(Protocol[Row_contra]):
    """Where finished rows leave the system.

    `write` takes the whole batch or raises `DeliveryFailed`. The same rows may come twice after a restart: writing
    twice must equal writing once.
    """

    name: str

    def write(self, rows: Sequence[Row_contra]) -> None:
        """Hand over a batch.

        Raises
        ------
        DeliveryFailed
            What failed, whether to retry, and when; the sink itself never retries.
        """
        ...

    def close(self) -> None:
        """Release connections."""
        ...
