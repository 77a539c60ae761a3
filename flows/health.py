"""The HTTP side of a running process: `/metrics`, `/healthz`, `/readyz`. On loopback unless told otherwise.

Nobody can hold it up for long: a request has a time, a size and one of a limited number of places.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import BadSettings

REQUEST_S: Final = 5.0
"""A request that has not come in whole by then is dropped; so is an answer that is not taken."""

REQUEST_BYTES: Final = 16_384
"""Longer requests are dropped; a probe has a few hundred bytes."""

PLACES: Final = 32
"""Requests at one time; further connections are closed at once."""


class HealthServer:
    """Serves metrics and health in a background thread.

    Parameters
    ----------
    registry
        Metrics to expose.
    host, port
        Address; port 0 takes a free one.
    ready
        Empty text when the process can do its work, otherwise what is missing.
    request_s
        Seconds that a client has for its request.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        host: str,
        port: int,
        ready: Callable[[], str],
        *,
        request_s: float = REQUEST_S,
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            error_message_format = "%(code)d %(message)s\n"
            error_content_type = "text/plain; charset=utf-8"

            def setup(self) -> None:
                super().setup()
                self.rfile.close()
                self.rfile = io.BufferedReader(_Bounded(self.connection, request_s))

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path == "/healthz":
                    self._answer(200, b"ok\n")
                elif self.path == "/readyz":
                    missing = ready()
                    self._answer(503 if missing else 200, (missing or "ready").encode() + b"\n")
                else:
                    self._answer(404, b"there is /metrics, /healthz and /readyz\n")

            def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
                self.connection.settimeout(request_s)
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def version_string(self) -> str:
                """No version: it would only tell what to attack."""
                return "tidegauge"

            def log_message(self, format: str, *args: object) -> None:
                """Probes are not worth a log line each."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as problem:
            raise BadSettings(
                f"metrics: {host}:{port} cannot be used ({problem.strerror}). Change metrics.port."
            ) from problem
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = PLACES

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(PLACES)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is not worth a traceback."""


class _Bounded(io.RawIOBase):
    """What a client sends, up to a time and a size for all of it together."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self.connection = connection
        self.until = time.monotonic() + seconds
        self.left = REQUEST_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive what there is."""
        self.connection.settimeout(max(self.until - time.monotonic(), 0.001))
        if time.monotonic() > self.until or self.left <= 0:
            raise TimeoutError
        n = self.connection.recv_into(memoryview(buffer)[: self.left])
        self.left -= n
        return n
