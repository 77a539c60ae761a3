"""A sink that answers as scripted, and a clock that is set by hand: delivery without threads, sleeps or a network."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import DeliveryFailed
from schemas.incident import Incident
from sinks.courier import Courier
from sinks.traits import Traits


class Clock:
    """Epoch seconds that move only when told to."""

    def __init__(self, now: float = 1_772_360_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Scripted:
    """Raises what `failures` holds, one by one; then takes everything. `poison` is always refused with its error."""

    def __init__(self, name: str = "ops", traits: Traits | None = None, clock: Clock | None = None) -> None:
        self.name = name
        self.traits = traits or Traits()
        self.clock = clock or Clock()
        self.failures: list[Exception] = []
        self.poison: dict[str, Exception] = {}
        self.batches: list[list[tuple[str, int]]] = []
        self.times: list[float] = []
        self.closed = False

    def write(self, rows: Sequence[Incident]) -> None:
        self.batches.append([(i.incident_id, i.revision) for i in rows])
        self.times.append(self.clock())
        if self.failures:
            raise self.failures.pop(0)
        for row in rows:
            if row.incident_id in self.poison:
                raise self.poison[row.incident_id]

    def close(self) -> None:
        self.closed = True

    @property
    def sent(self) -> list[tuple[str, int]]:
        return [key for batch in self.batches for key in batch]


def later(message: str = "busy", retry_after_s: float | None = None) -> DeliveryFailed:
    return DeliveryFailed(message, retryable=True, retry_after_s=retry_after_s)


def never(message: str = "refused") -> DeliveryFailed:
    return DeliveryFailed(message, retryable=False)


def run(courier: Courier, clock: Clock, for_s: float = 0.0, steps: int = 10_000) -> None:
    """Step a courier through time until it has nothing to do, or `for_s` seconds have passed on the clock."""
    end = clock.now + for_s
    for _ in range(steps):
        rest = courier.step()
        if rest == 0.0:
            continue
        if rest is None or clock.now + rest > end:
            clock.now = end
            return
        clock.now += rest + 1e-6
    raise AssertionError("the courier never came to rest")
