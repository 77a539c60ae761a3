"""The HTTP side: it tells the truth, tells nothing else, and nobody can hold it up."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from flows.health import PLACES, HealthServer
from flows.settings import Metrics
from schemas.errors import BadSettings

Serve = Callable[..., HealthServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made = []

    def make(missing: str = "", **options: float) -> HealthServer:
        registry = CollectorRegistry()
        Gauge("tidegauge_x", "x", registry=registry).set(3)
        it = HealthServer(registry, "127.0.0.1", 0, lambda: missing, **options)
        made.append(it)
        return it

    yield make
    for it in made:
        it.close()


def get(it: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{it.port}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read().decode()


def sent(it: HealthServer, request: bytes) -> bytes:
    """Everything that the server answers to some bytes, until it hangs up."""
    with socket.create_connection(("127.0.0.1", it.port), timeout=20) as client:
        answer = b""
        try:
            client.sendall(request)
            while piece := client.recv(65_536):
                answer += piece
        except ConnectionError:
            pass
        return answer


def test_it_listens_on_loopback_by_default() -> None:
    assert Metrics().host == "127.0.0.1"


def test_readyz_says_in_words_what_is_missing(serve: Serve) -> None:
    assert get(serve(), "/readyz") == (200, "ready\n")
    it = serve("the spool is full")
    assert get(it, "/readyz") == (503, "the spool is full\n")
    assert get(it, "/healthz") == (200, "ok\n")
    assert "tidegauge_x 3.0" in get(it, "/metrics")[1]


def test_no_version_is_told(serve: Serve) -> None:
    it = serve()
    for request in (
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"BREW / HTTP/1.0\r\n\r\n",
        b"\x00\xff\r\n\r\n",
        b"GET /<b> HTTP/1.1\r\n\r\n",
    ):
        answer = sent(it, request)
        assert b"Python" not in answer
        assert b"BaseHTTP" not in answer
        assert b"<" not in answer


@pytest.mark.parametrize(
    "request_", [b"GET /" + b"x" * 100_000 + b" HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\n" + b"A: b\r\n" * 50_000]
)
def test_long_requests_are_dropped_and_the_next_is_answered(serve: Serve, request_: bytes) -> None:
    it = serve()
    assert b"200" not in sent(it, request_)
    assert get(it, "/healthz")[0] == 200


def test_a_client_that_never_ends_its_request_is_dropped(serve: Serve) -> None:
    it = serve(request_s=0.2)
    over = threading.Event()
    with socket.create_connection(("127.0.0.1", it.port), timeout=20) as slow:

        def drip() -> None:
            try:
                while not over.wait(0.02):  # each byte comes in time, all of them together do not
                    slow.sendall(b"x")
            except OSError:
                pass

        dripping = threading.Thread(target=drip)
        dripping.start()
        with contextlib.suppress(ConnectionError):
            assert slow.recv(1) == b""
        over.set()
        dripping.join()
    assert get(it, "/healthz")[0] == 200


def test_silent_clients_take_a_bounded_number_of_threads(serve: Serve) -> None:
    it = serve(request_s=2.0)
    before = threading.active_count()
    clients = [socket.create_connection(("127.0.0.1", it.port), timeout=20) for _ in range(PLACES + 20)]
    try:
        # The last ones are turned away at once, while the others still hold their places.
        assert clients[-1].recv(1) == b""
        assert threading.active_count() <= before + PLACES
        assert clients[0].recv(1) == b"", "in the end all of them are dropped"
    except ConnectionError:
        pass
    finally:
        for client in clients:
            client.close()
    assert get(it, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_a_settings_error(serve: Serve) -> None:
    with pytest.raises(BadSettings, match=r"metrics\.port"):
        HealthServer(CollectorRegistry(), "127.0.0.1", serve().port, lambda: "")
