"""A TLS server whose certificate nobody has vouched for."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CERTIFICATE = Path(__file__).with_name("self_signed.pem")
"""For `localhost` and `127.0.0.1`, with its key. Made for these tests and worth nothing elsewhere."""


class SelfSigned:
    """What came through the encryption, which nothing should: a client that checks hangs up before."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.handshakes = 0
        """Clients that got as far as the certificate."""
        self.received = b""


@contextmanager
def self_signed() -> Iterator[SelfSigned]:
    """Run one for the time of a test; it answers every request with an empty HTTP 200."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        it = SelfSigned(listener.getsockname()[1])
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with suppress(OSError):
                    client, _ = listener.accept()
                    client.settimeout(5)
                    it.handshakes += 1
                    with client, context.wrap_socket(client, server_side=True) as secured:
                        it.received += secured.recv(65_536)
                        secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield it
        finally:
            over.set()
            with suppress(OSError), socket.create_connection(("127.0.0.1", it.port), timeout=1):
                pass
            thread.join(10)
