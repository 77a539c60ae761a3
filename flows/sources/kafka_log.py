"""What librdkafka has to say, in our logs: structured, and no more than a line a minute about the same thing."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable

import structlog

EVERY_S = 60.0
MOST_KINDS = 200
_VARYING = re.compile(r"\d+")


class Sparing:
    """Lets a message pass if the same (but for its numbers) has not passed within `every_s`.

    Parameters
    ----------
    every_s
        How long the same message is then held back.
    monotonic
        Clock.
    """

    def __init__(self, every_s: float = EVERY_S, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.every_s = every_s
        self.monotonic = monotonic
        self._seen: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def passes(self, message: str) -> int | None:
        """How many like it were held back since the last one that passed; None if this one is, too."""
        kind = _VARYING.sub("", message)[:120]
        now = self.monotonic()
        with self._lock:
            last_s, held = self._seen.get(kind, (-self.every_s, 0))
            if now - last_s < self.every_s:
                self._seen[kind] = (last_s, held + 1)
                return None
            if len(self._seen) >= MOST_KINDS:
                self._seen.clear()
            self._seen[kind] = (now, 0)
            return held


_sparing = Sparing()


def say(problem: str, **fields: object) -> None:
    """Warn of a client's trouble, sparingly."""
    held = _sparing.passes(f"{problem}{sorted(fields.items())}")
    if held is not None:
        more = {"like_it_held_back": held} if held else {}
        structlog.get_logger().warning("kafka", problem=problem, **fields, **more)


class _Structured(logging.Handler):
    """Takes librdkafka's lines: `FACILITY [client] [thread]: text`."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage().rpartition("]: ")[2])


def client_logger() -> logging.Logger:
    """For the `logger` argument of a client that is polled."""
    logger = logging.getLogger("tidegauge.kafka")
    if not logger.handlers:
        logger.addHandler(_Structured())
        logger.propagate = False
    return logger
