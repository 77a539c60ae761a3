"""The faults that the proxy makes are what a client's socket really sees."""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.servers.proxy import FaultProxy

BIG = bytes(range(256)) * 400


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes, and keeps it."""

    def handle(self) -> None:
        while data := self._receive():
            self.server.seen += data  # type: ignore[attr-defined]
            try:
                self.request.sendall(data)
            except OSError:
                return

    def _receive(self) -> bytes:
        try:
            return bytes(self.request.recv(65_536))
        except OSError:
            return b""


@pytest.fixture
def server() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as it:
        it.daemon_threads = True
        it.seen = b""  # type: ignore[attr-defined]
        thread = threading.Thread(target=it.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield it
        it.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: socketserver.ThreadingTCPServer) -> Iterator[FaultProxy]:
    with FaultProxy(("127.0.0.1", server.server_address[1])) as it:
        yield it


class Client:
    """A plain socket. A context manager."""

    def __init__(self, proxy: FaultProxy) -> None:
        self.socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=20)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, request: bytes) -> bytes:
        """Send, and read as many bytes back."""
        self.socket.sendall(request)
        return self.read(len(request))

    def read(self, n: int) -> bytes:
        """Up to `n` bytes; fewer at the end of the connection."""
        out = b""
        while len(out) < n and (data := self.socket.recv(n - len(out))):
            out += data
        return out

    def is_silent(self) -> bool:
        """Whether nothing came, and no end either."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(20)
        return False


def assert_reset(client: Client) -> None:
    with pytest.raises(ConnectionResetError):
        client.read(1)


def test_everything_passes_unchanged_and_an_end_stays_an_end(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        assert client.ask(BIG) == BIG
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read(1) == b""
    assert proxy.carried == {"request": len(BIG), "answer": len(BIG)}


def test_cut_resets_existing_and_new_connections_until_healed(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        assert client.ask(b"a") == b"a"
        proxy.cut()
        assert_reset(client)
    with pytest.raises(ConnectionResetError), Client(proxy) as client:  # while it connects, or afterwards
        client.read(1)
    proxy.heal()
    with Client(proxy) as client:
        assert client.ask(b"b") == b"b"


def test_cut_once_resets_existing_connections_alone(proxy: FaultProxy) -> None:
    with Client(proxy) as old, Client(proxy) as new:
        assert old.ask(b"a") == new.ask(b"a")
        proxy.cut_once()
        assert_reset(old)
    with Client(proxy) as client:
        assert client.ask(b"b") == b"b"


def test_refused_connections_come_through_again_on_the_same_port(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        assert client.ask(b"a") == b"a"
        proxy.refuse()
        assert_reset(client)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            Client(proxy)
    with socket.socket() as other, pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        other.bind(("127.0.0.1", proxy.port))
    proxy.heal()
    with Client(proxy) as client:
        assert client.ask(b"b") == b"b"


def test_a_delay_holds_every_byte_back_without_slowing_the_stream(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        proxy.delay(0.2)
        begun = time.monotonic()
        assert client.ask(BIG * 10) == BIG * 10  # 16 chunks and more; one after the other they would take seconds
        assert time.monotonic() - begun >= 0.4


def test_a_throttle_bounds_the_bytes_per_second(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        proxy.throttle(200_000)
        begun = time.monotonic()
        assert client.ask(BIG) == BIG
        assert time.monotonic() - begun >= 0.4
        proxy.heal()
        assert client.ask(BIG) == BIG


def test_half_open_takes_connections_and_bytes_and_says_nothing(
    proxy: FaultProxy, server: socketserver.ThreadingTCPServer
) -> None:
    with Client(proxy) as old:
        assert old.ask(b"a") == b"a"
        proxy.half_open()
        with Client(proxy) as new:
            old.socket.sendall(b"bb")
            new.socket.sendall(b"ccc")
            proxy.wait_until(lambda p: p.swallowed["request"] == 5)
            assert old.is_silent()
            assert new.is_silent()
            proxy.heal()
            assert_reset(old)
            assert_reset(new)
    assert server.seen == b"a"  # type: ignore[attr-defined]


def test_half_open_may_deliver_and_swallow_the_answers_alone(
    proxy: FaultProxy, server: socketserver.ThreadingTCPServer
) -> None:
    proxy.half_open(delivers=True)
    with Client(proxy) as client:
        client.socket.sendall(b"abc")
        proxy.wait_until(lambda p: p.swallowed["answer"] == 3)
        assert client.is_silent()
    assert server.seen == b"abc"  # type: ignore[attr-defined]


def test_an_untouched_connection_outlives_half_open(proxy: FaultProxy) -> None:
    with Client(proxy) as client:
        assert client.ask(b"a") == b"a"
        proxy.half_open()
        proxy.heal()
        assert client.ask(b"b") == b"b"


def test_a_request_can_be_cut_in_its_middle(proxy: FaultProxy, server: socketserver.ThreadingTCPServer) -> None:
    with Client(proxy) as client:
        assert client.ask(b"first") == b"first"
        proxy.drop_after("request", 3)
        client.socket.sendall(b"second")
        proxy.wait_until(lambda p: p.trapped == 1)
        with pytest.raises(ConnectionResetError):
            client.read(100)
    with Client(proxy) as client:
        assert client.ask(b"third") == b"third"
    assert server.seen in (b"firstsecthird", b"firstthird")  # type: ignore[attr-defined]


def test_an_answer_can_be_lost_after_the_server_did_its_work(
    proxy: FaultProxy, server: socketserver.ThreadingTCPServer
) -> None:
    with Client(proxy) as bystander, Client(proxy) as client:
        proxy.drop_after("answer", marker=b"INSERT")
        assert client.ask(b"SELECT") == b"SELECT"
        client.socket.sendall(b"INSERT")
        assert_reset(client)
        assert bystander.ask(b"SELECT") == b"SELECT"
    assert b"INSERT" in server.seen  # type: ignore[attr-defined]
    assert proxy.trapped == 1


def test_an_answer_can_be_cut_in_its_middle(proxy: FaultProxy) -> None:
    proxy.drop_after("answer", 1_000)
    with Client(proxy) as client:
        client.socket.sendall(BIG)
        proxy.wait_until(lambda p: p.trapped == 1)
        with pytest.raises(ConnectionResetError):
            client.read(len(BIG))
    assert proxy.carried["answer"] == 1_000


def test_silence_can_begin_in_the_middle_of_a_request(
    proxy: FaultProxy, server: socketserver.ThreadingTCPServer
) -> None:
    with Client(proxy) as client:
        proxy.fall_silent_after(4, marker=b"INSERT")
        client.socket.sendall(b"INSERT rows")
        proxy.wait_until(lambda p: p.swallowed["request"] == 7)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.read(100)
    assert server.seen in (b"INSE", b"")  # type: ignore[attr-defined]


def test_a_server_that_is_not_there_resets_the_client(server: socketserver.ThreadingTCPServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with (
            FaultProxy(closed.getsockname()) as proxy,
            pytest.raises(ConnectionResetError),
            Client(proxy) as client,
        ):
            client.read(1)
