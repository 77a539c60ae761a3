"""A bound on a whole HTTP exchange: time-outs of sockets are per read, so a receiver that drips bytes evades them."""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Deadline:
    """Breaks the connection that is in use when time is up. For one exchange at a time.

    It bounds what nothing else does: sending, and the head of the answer. A TLS handshake is bounded by the socket's
    own time-out, the body of an answer by its reader.
    """

    def __init__(self) -> None:
        self._connection: Callable[[], HTTPConnection | None] = lambda: None
        self.passed = False
        """Whether the last exchange was broken off."""

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Bound what happens in the block."""
        self.passed = False
        timer = threading.Timer(seconds, self._break)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def watch(self, connection: HTTPConnection) -> None:
        """Remember the connection in use."""
        self._connection = weakref.ref(connection)

    def _break(self) -> None:
        self.passed = True
        connection = self._connection()
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def pool_manager(deadline: Deadline, timeout: urllib3.Timeout) -> urllib3.PoolManager:
    """One verified connection at a time, watched by a deadline; no retries and no proxies."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            deadline.watch(self)
            super().connect()

    class Verified(HTTPSConnection):
        def connect(self) -> None:
            deadline.watch(self)
            super().connect()

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class VerifiedPool(HTTPSConnectionPool):
        ConnectionCls = Verified

    pool = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False, cert_reqs="CERT_REQUIRED", timeout=timeout)
    pool.pool_classes_by_scheme = {"http": PlainPool, "https": VerifiedPool}
    return pool
