"""A receiver on loopback that stands in for Slack and PagerDuty, so that the demo shows real deliveries."""

from __future__ import annotations

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Accepts every POST and counts it by path."""

    def __init__(self) -> None:
        counts: Counter[str] = Counter()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                counts[self.path] += 1
                slack = self.path.startswith("/slack")
                body = b"ok" if slack else b'{"status":"success"}'
                self.send_response(200 if slack else 202)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """The board counts; nothing is logged."""

        self._counts = counts
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    def count(self, path: str) -> int:
        """Messages received under a path."""
        return self._counts[path]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
