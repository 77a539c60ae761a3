"""The HTTP side of a running process: `/metrics`, `/healthz`, `/readyz`. On loopback unless told otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import BadSettings


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
    """

    def __init__(self, registry: CollectorRegistry, host: str, port: int, ready: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
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
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes are not worth a log line each."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
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
