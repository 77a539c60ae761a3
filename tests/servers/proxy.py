"""A TCP proxy on loopback that stands between a client and a server and can be told to fail.

    with FaultProxy(("127.0.0.1", 8123)) as proxy:
        client = connect(proxy.url)
        proxy.cut()        # also: refuse, half_open, delay, throttle, drop_after
        proxy.heal()

A switch is in force when its method returns. It knows nothing of what it carries, so TLS and Kafka pass as HTTP does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar

CHUNK_BYTES = 65_536
IN_FLIGHT_CHUNKS = 64
STEPS_PER_S = 20
"""Chunks a second of a throttled direction."""
ANSWER_TIMEOUT_S = 20.0

Direction = Literal["request", "answer"]
T = TypeVar("T")


@dataclass(frozen=True)
class Mode:
    """How bytes are carried."""

    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    """0 for as many as there are."""
    refusing: bool = False
    cutting: bool = False
    silent: bool = False
    """What comes from the server is swallowed; what goes to it too, unless `delivers`."""
    delivers: bool = False


PASS = Mode()


@dataclass
class Trap:
    """Waits for a number of bytes of one direction; then the connection breaks and the mode changes."""

    direction: Direction
    after_bytes: int
    marker: bytes
    """Counting begins with the request that holds this."""
    then: Mode


class FaultProxy:
    """A proxy that passes everything until it is told otherwise. A context manager.

    Parameters
    ----------
    target
        Host and port of the server; it need not be there yet.
    port
        Port to listen on; 0 takes a free one.
    """

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        self.target = target
        self.accepted = 0
        """Connections taken so far."""
        self.carried: dict[Direction, int] = {"request": 0, "answer": 0}
        """Bytes handed on so far."""
        self.swallowed: dict[Direction, int] = {"request": 0, "answer": 0}
        """Bytes that a silent proxy took and did not hand on."""
        self.trapped = 0
        """How often `drop_after` has struck."""
        self.changed = threading.Condition()
        """Notified whenever one of these changes."""
        self._mode = PASS
        self._trap: Trap | None = None
        self._connections: set[Connection] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._socket = _bound(port)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """`http://host:port` for clients."""
        return f"http://{self.address}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._on_loop(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._on_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_TIMEOUT_S)
        self._loop.close()

    # ------------------------------------------------------------------ switches
    def heal(self) -> None:
        """Pass everything. Connections that a silent proxy has robbed of bytes are reset."""
        self._switch(PASS)

    def cut(self) -> None:
        """Reset existing connections, and new ones as soon as they are made."""
        self._switch(Mode(cutting=True))

    def cut_once(self) -> None:
        """Reset existing connections; new ones are carried as before."""
        self._on_loop(self._reset_all())

    def refuse(self) -> None:
        """Reset existing connections and refuse new ones; the port stays ours until `heal`."""
        self._switch(Mode(refusing=True))

    def delay(self, seconds: float) -> None:
        """Hand on every byte so much later, in both directions; throughput stays."""
        self._switch(Mode(delay_s=seconds))

    def throttle(self, bytes_per_s: float) -> None:
        """Hand on so many bytes a second, in each direction of each connection."""
        self._switch(Mode(bytes_per_s=bytes_per_s))

    def half_open(self, *, delivers: bool = False) -> None:
        """Accept and read, but never answer; established connections fall silent, too.

        Parameters
        ----------
        delivers
            Whether requests reach the server, whose answers are swallowed.
        """
        self._switch(Mode(silent=True, delivers=delivers))

    def drop_after(self, direction: Direction, n_bytes: int = 0, *, marker: bytes = b"", then: Mode = PASS) -> None:
        """Once, reset the connection on which one more byte than `n_bytes` of a direction comes.

        `drop_after("answer")` loses a whole answer: the server has done what was asked, and the client cannot know.

        Parameters
        ----------
        direction, n_bytes
            What is counted, and what is still handed on.
        marker
            Counting begins with the next request that holds this; by default at once.
        then
            How everything is carried afterwards.
        """

        async def arm() -> None:
            self._trap = Trap(direction, n_bytes, marker, then)

        self._on_loop(arm())

    def fall_silent_after(self, n_bytes: int, *, marker: bytes = b"") -> None:
        """From the byte after `n_bytes` of requests on be silent, in the middle of a request, without any reset."""
        self.drop_after("request", n_bytes, marker=marker, then=Mode(silent=True))

    def wait_until(self, condition: Callable[[FaultProxy], bool], timeout_s: float = 30.0) -> None:
        """Wait until a condition over the counters holds."""
        with self.changed:
            if not self.changed.wait_for(lambda: condition(self), timeout_s):
                raise AssertionError(f"not within {timeout_s:.0f} s; {self.accepted=} {self.carried=} {self.trapped=}")

    # ------------------------------------------------------------------ on the loop
    def _on_loop(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(ANSWER_TIMEOUT_S)

    def _switch(self, mode: Mode) -> None:
        self._on_loop(self._enter(mode))

    async def _enter(self, mode: Mode) -> None:
        self._trap = None
        self._mode = mode
        if mode.refusing or mode.cutting:
            await self._reset_all()
        else:
            for connection in [c for c in self._connections if c.robbed and not mode.silent]:
                await connection.reset()
        if mode.refusing:
            await self._stop_listening()
        elif self._accepting is None:
            await self._listen()

    async def _reset_all(self) -> None:
        for connection in list(self._connections):
            await connection.reset()

    async def _listen(self) -> None:
        self._socket.listen(128)
        self._accepting = self._loop.create_task(self._accept())

    async def _stop_listening(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
            self._socket.close()
            self._socket = _bound(self.port)  # bound but not listening: nobody else gets the port

    async def _close(self) -> None:
        await self._reset_all()
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._socket)
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, client)
            self._connections.add(connection)
            self._count(lambda: setattr(self, "accepted", self.accepted + 1))
            if self._mode.cutting:
                await connection.reset()
            else:
                connection.start()

    def _count(self, change: Callable[[], None]) -> None:
        with self.changed:
            change()
            self.changed.notify_all()


class Connection:
    """One client's connection and ours to the server. Used on the proxy's loop alone."""

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self.robbed = False
        """Whether bytes were swallowed: it can never be carried on."""
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._counted: int | None = None
        """Bytes that the armed trap has seen here; None before its marker."""
        self._counted_by: Trap | None = None
        self._tail = b""

    def start(self) -> None:
        """Begin to carry."""
        self._task = self._proxy._loop.create_task(self._run())

    async def reset(self) -> None:
        """Break both sides with RST."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._end(reset=True)

    def _end(self, *, reset: bool) -> None:
        for side in (self._client, self._server):
            if side is not None and side.fileno() >= 0:
                if reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.close()
        self._proxy._connections.discard(self)

    async def _run(self) -> None:
        loop = self._proxy._loop
        reset = True
        pumps: list[asyncio.Task[None]] = []
        try:
            self._server = socket.socket()
            self._server.setblocking(False)
            self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.robbed = self._proxy._mode.silent and not self._proxy._mode.delivers
            if not self.robbed:
                await loop.sock_connect(self._server, self._proxy.target)
                pumps.append(loop.create_task(self._pump("answer", self._server, self._client)))
            pumps.append(loop.create_task(self._pump("request", self._client, self._server)))
            await asyncio.gather(*pumps)
            reset = self.robbed
        except OSError:
            pass  # one side has broken; so does the other
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._end(reset=reset)

    async def _pump(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        loop = self._proxy._loop
        waiting: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(IN_FLIGHT_CHUNKS)
        reading = loop.create_task(self._read(source, waiting))
        try:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(due - loop.time(), 0.0))
                if data is None:
                    raise ConnectionResetError
                if not data:
                    if not self.robbed:
                        target.shutdown(socket.SHUT_WR)
                    return
                await self._hand_on(direction, data, target)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, source: socket.socket, waiting: asyncio.Queue[tuple[float, bytes | None]]) -> None:
        """Read on while earlier bytes are delayed. Empty bytes are an end, None is a broken connection."""
        loop = self._proxy._loop
        data: bytes | None = b"."
        while data:
            rate = self._proxy._mode.bytes_per_s
            try:
                data = await loop.sock_recv(source, max(int(rate / STEPS_PER_S), 1) if rate else CHUNK_BYTES)
            except OSError:
                data = None
            await waiting.put((loop.time() + self._proxy._mode.delay_s, data))

    async def _hand_on(self, direction: Direction, data: bytes, target: socket.socket) -> None:
        proxy, mode = self._proxy, self._proxy._mode
        if mode.silent and not (direction == "request" and mode.delivers):
            self._swallow(direction, len(data))
            return
        kept = self._kept(direction, data)
        await proxy._loop.sock_sendall(target, data[:kept])
        proxy._count(lambda: proxy.carried.update({direction: proxy.carried[direction] + kept}))
        if kept < len(data):
            assert proxy._trap is not None
            proxy._mode, proxy._trap = proxy._trap.then, None
            proxy._count(lambda: setattr(proxy, "trapped", proxy.trapped + 1))
            if not proxy._mode.silent:
                raise ConnectionResetError
            self._swallow(direction, len(data) - kept)
        elif mode.bytes_per_s:
            await asyncio.sleep(len(data) / mode.bytes_per_s)

    def _swallow(self, direction: Direction, n: int) -> None:
        self.robbed = True
        swallowed = self._proxy.swallowed
        self._proxy._count(lambda: swallowed.update({direction: swallowed[direction] + n}))

    def _kept(self, direction: Direction, data: bytes) -> int:
        """How much of some bytes the trap lets through."""
        trap = self._proxy._trap
        if trap is None:
            return len(data)
        if self._counted_by is not trap:
            self._counted_by, self._counted, self._tail = trap, 0 if not trap.marker else None, b""
        begun = 0
        if self._counted is None:
            if direction != "request":
                return len(data)
            seen = self._tail + data
            self._tail = seen[-len(trap.marker) :]
            at = seen.find(trap.marker)
            if at < 0:
                return len(data)
            self._counted = 0
            begun = max(at - (len(seen) - len(data)), 0)
        if direction != trap.direction:
            return len(data)
        allowed = begun + trap.after_bytes - self._counted
        self._counted += len(data) - begun
        return min(len(data), max(allowed, 0))


def _bound(port: int) -> socket.socket:
    it = socket.socket()
    it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    it.bind(("127.0.0.1", port))
    it.setblocking(False)
    return it
