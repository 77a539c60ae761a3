"""A real HTTP receiver on loopback that answers as scripted and remembers what it got."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Request(NamedTuple):
    """What came in."""

    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What goes out. `hold` answers only when the test is over; `raw` is sent instead of HTTP."""

    status: int = 200
    body: bytes = b"ok"
    headers: tuple[tuple[str, str], ...] = ()
    hold: bool = False
    raw: bytes | None = None


class Receiver:
    """`answers` are used up one by one; then `default` is given."""

    def __init__(self, url: str, default: Answer) -> None:
        self.url = url
        self.default = default
        self.answers: list[Answer] = []
        self.requests: list[Request] = []
        self.over = threading.Event()
        self.on_request: Callable[[Request], None] = lambda request: None


@contextmanager
def receiver(default: Answer | None = None, port: int = 0) -> Iterator[Receiver]:
    """Run a receiver for the time of a test, on a free port unless one is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            it.requests.append(request)
            it.on_request(request)
            answer = it.answers.pop(0) if it.answers else it.default
            if answer.hold:
                it.over.wait(20)
                self.close_connection = True
                return
            if answer.raw is not None:
                self.wfile.write(answer.raw)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            if answer.status == 204:
                self.end_headers()
                return
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            with suppress(ConnectionError):  # the sink does not read answers without end
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients and proxies that break off are what is tested."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)  # type: ignore[arg-type]

    server = Server(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    it = Receiver(f"http://127.0.0.1:{server.server_port}", default or Answer())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield it
    finally:
        it.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
