"""A clean stop: SIGTERM, Ctrl-C and a closed terminal let what was read flow to its end, within bounded time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

GRACE_S = 8.5
"""A stop takes no longer: orchestrators kill after 10 s or more. Whatever is left then is on disk or is read again."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def on_signal(grace_s: float = GRACE_S) -> Iterator[threading.Event]:
    """Yield an event that SIGTERM, Ctrl-C and SIGHUP set; they do nothing else. A second one ends the process at once.

    A signal that is ignored already (`nohup`) stays so.

    The process ends with code 0 when the block has not been left within `grace_s`: a crash at any moment loses nothing,
    so neither does an end by the clock. Use it in the main thread.
    """
    asked = threading.Event()
    watchdog = threading.Timer(grace_s, _leave)
    watchdog.daemon = True

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()
        watchdog.start()
        structlog.get_logger().info("stopping", signal=signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield asked
    finally:
        watchdog.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave() -> None:
    structlog.get_logger().warning("the stop took too long; what is left waits on disk or is read again")
    sys.stderr.flush()
    os._exit(0)
