"""A clean stop: SIGTERM, Ctrl-C and a closed terminal let what was read flow to its end, within bounded time."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

GRACE_S = 8.5
"""A stop takes no longer: orchestrators kill after 10 s or more. Whatever is left then is on disk or is read again."""

_OVER = 0
"""What the listener is told at the end; no signal has that number."""

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
    # The interpreter runs handlers in the main thread, which the engine holds for as long as it waits for the others of
    # a cluster. A signal's number is written to this socket at once, and a thread takes it from there.
    ours, told = socket.socketpair()
    told.setblocking(False)

    def listen() -> None:
        while (number := ours.recv(1)[0]) != _OVER:
            if number not in before:
                continue
            if asked.is_set():
                os._exit(128 + number)
            asked.set()
            watchdog.start()
            structlog.get_logger().info("stopping", signal=signal.Signals(number).name)

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    wakeup = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, _heard) for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN
    }
    listener.start()
    try:
        yield asked
    finally:
        watchdog.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        told.send(bytes([_OVER]))
        listener.join()
        ours.close()
        told.close()


def _heard(number: int, frame: FrameType | None) -> None:
    """Nothing to do: the listener knows already."""


def _leave() -> None:
    structlog.get_logger().warning("the stop took too long; what is left waits on disk or is read again")
    sys.stderr.flush()
    os._exit(0)
