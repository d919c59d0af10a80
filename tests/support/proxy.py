"""A TCP proxy for tests that knows HTTP/2: it sees frames, streams and the gRPC method of each stream, and makes the network fail on purpose.

What fails is a connection or a direction of it, as in a real network; which one, and when, may depend on the method of a stream. TCP hides
loss and repetition from gRPC, so these are made here: a reply that is cut off after its request was carried out, a direction that carries
nothing for a while, a unary call that arrives again much later.

    with Proxy() as proxy:
        proxy.target = server.address
        proxy.at("CommitEpoch", "reply", proxy.cut_connection)      # the next reply is not delivered
        ...
        assert proxy.fired == ["CommitEpoch reply"]

Threads: two for each connection and one that accepts; every public method from any thread. Addresses are "host:port".
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.support.hpack import path_of

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _GOAWAY, _CONTINUATION = 0x0, 0x1, 0x3, 0x7, 0x9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x4, 0x8, 0x20
_CANCEL = 0x8
_LAST_STREAM = 0x7FFFFFFF
_CAPTURE_MAX = 1 << 20

UP, DOWN = "up", "down"  # from the caller to the server, and back


@dataclass
class _Rule:
    method: str
    event: str  # "request" or "reply"
    action: Callable[["_Connection", int], bool]
    times: int
    skip: int


@dataclass
class _Connection:
    client: socket.socket
    server: socket.socket
    methods: dict[int, str] = field(default_factory=dict)  # of the streams seen so far
    requests: dict[int, bytes] = field(default_factory=dict)
    hpack: list[tuple[bytes, bytes]] = field(default_factory=list)  # dynamic table of the caller's direction, newest first
    writing: dict[str, threading.Lock] = field(default_factory=lambda: {UP: threading.Lock(), DOWN: threading.Lock()})

    def send(self, direction: str, data: bytes) -> None:
        with self.writing[direction]:
            (self.server if direction == UP else self.client).sendall(data)

    def reset(self) -> None:
        """Both ends see a reset, and what is on its way is lost."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Listens at `address` at once; forwards to `target` when that is set."""

    def __init__(self, target: str = "", host: str = "127.0.0.1") -> None:
        self.target = target
        self.fired: list[str] = []  # "Method event" of every rule that acted
        self.calls: Counter[str] = Counter()  # streams that were opened, by method
        self.captured: dict[str, bytes] = {}  # the newest whole request of each method, as it was on the wire
        self.delay_s = {UP: 0.0, DOWN: 0.0}
        self.bytes_per_s = {UP: 0.0, DOWN: 0.0}  # of each connection; 0: as fast as it goes
        self._open = {UP: threading.Event(), DOWN: threading.Event()}
        self._mu = threading.Lock()
        self._rules: list[_Rule] = []
        self._connections: list[_Connection] = []
        self._listener = socket.create_server((host, 0), backlog=1024)
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._closed = False
        self.heal()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self.heal()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    # ---- faults of every connection

    def hold(self, *directions: str) -> None:
        """A black hole: nothing more passes in these directions (default: both), until heal()."""
        for direction in directions or (UP, DOWN):
            self._open[direction].clear()

    def heal(self, cut: bool = False) -> None:
        """What was held goes on, as after TCP's retransmissions. With `cut` it is lost, and so are the connections."""
        if cut:
            self.cut()
        for direction in (UP, DOWN):
            self.delay_s[direction] = self.bytes_per_s[direction] = 0.0
            self._open[direction].set()

    def cut(self) -> None:
        """Resets every connection."""
        with self._mu:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.reset()

    def go_away(self, lost: bool = False) -> None:
        """Tells every caller that the server goes away. `lost`: it handled none of the streams that are open."""
        with self._mu:
            connections = list(self._connections)
        for connection in connections:
            payload = struct.pack(">II", 0 if lost else _LAST_STREAM, 0)
            with contextlib.suppress(OSError):
                connection.send(DOWN, frame(_GOAWAY, 0, 0, payload))

    def reset_streams(self, method: str) -> int:
        """RST_STREAM to both ends of every stream of that method. Returns how many."""
        with self._mu:
            connections = list(self._connections)
        found = 0
        for connection in connections:
            for stream, name in list(connection.methods.items()):
                if name == method:
                    found += 1
                    _reset_stream(connection, stream)
        return found

    @property
    def connections(self) -> int:
        with self._mu:
            return len(self._connections)

    # ---- faults at a message

    def at(self, method: str, event: str, action: Callable[[_Connection, int], bool], times: int = 1, skip: int = 0) -> None:
        """Acts on messages of a method's streams, after `skip` of them, `times` times.

        event   "request": a message of the caller was forwarded. "reply": bytes of the server are about to be forwarded
        action  cut_connection, reset_stream, or a function of the test; it returns whether the frame still goes on
        """
        with self._mu:
            self._rules.append(_Rule(method, event, action, times, skip))

    def disarm(self) -> None:
        """Forgets what `at` planned and no message has met."""
        with self._mu:
            self._rules.clear()

    def cut_connection(self, connection: _Connection, stream: int) -> bool:
        connection.reset()
        return False

    def reset_stream(self, connection: _Connection, stream: int) -> bool:
        _reset_stream(connection, stream)
        return True  # its headers belong to the state of the connection

    def replay(self, method: str, service: str = "ballast.v1.Control", timeout_s: float = 30.0) -> bytes:
        """Sends the newest captured unary request of `method` again, byte for byte. Returns the reply. Raises grpc.RpcError."""
        with grpc.insecure_channel(self.target) as channel:
            call = channel.unary_unary(f"/{service}/{method}", request_serializer=None, response_deserializer=None)
            return bytes(call(self.captured[method][5:], timeout=timeout_s))

    # ---- pumps

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                host, _, port = self.target.rpartition(":")
                server = socket.create_connection((host, int(port)), timeout=5)
            except (OSError, ValueError):
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(client, server)
            with self._mu:
                self._connections.append(connection)
            for direction in (UP, DOWN):
                threading.Thread(target=self._pump, args=(connection, direction), daemon=True).start()

    def _pump(self, connection: _Connection, direction: str) -> None:
        source = (connection.client if direction == UP else connection.server).makefile("rb")
        try:
            if direction == UP:
                self._forward(connection, direction, _exactly(source, len(_PREFACE)))
            while True:
                head = _exactly(source, 9)
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big") & _LAST_STREAM
                payload = _exactly(source, length)
                if self._on_frame(connection, direction, kind, flags, stream, payload):
                    self._forward(connection, direction, head + payload)
                    self._after_frame(connection, direction, kind, stream)
        except (OSError, ValueError, EOFError):
            pass
        finally:
            with self._mu:
                if connection in self._connections:
                    self._connections.remove(connection)
            connection.reset()

    def _forward(self, connection: _Connection, direction: str, data: bytes) -> None:
        if self.delay_s[direction] > 0:
            time.sleep(self.delay_s[direction])
        self._open[direction].wait()
        if self.bytes_per_s[direction] <= 0:
            return connection.send(direction, data)
        for i in range(len(data)):
            rate = self.bytes_per_s[direction]
            if rate <= 0:
                return connection.send(direction, data[i:])
            connection.send(direction, data[i : i + 1])
            time.sleep(1 / rate)

    def _on_frame(self, connection: _Connection, direction: str, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Learns from a frame, and asks the rules. False: it is not forwarded."""
        if direction == UP and kind == _HEADERS:
            assert flags & _END_HEADERS, "headers of more than one frame: too long for this proxy"
            method = path_of(_without_padding(payload, flags), connection.hpack).rpartition(b"/")[2].decode()
            if method:
                connection.methods[stream] = method
                self.calls[method] += 1
        if direction == UP and kind == _DATA:
            self._capture(connection, stream, flags, payload)
        if direction == DOWN and kind in (_DATA, _HEADERS):
            return self._act(connection, stream, "reply")
        return True

    def _after_frame(self, connection: _Connection, direction: str, kind: int, stream: int) -> None:
        if direction == UP and kind == _DATA:
            self._act(connection, stream, "request")

    def _act(self, connection: _Connection, stream: int, event: str) -> bool:
        method = connection.methods.get(stream, "")
        with self._mu:
            rule = next((r for r in self._rules if r.method == method and r.event == event), None)
            if rule is None:
                return True
            if rule.skip > 0:
                rule.skip -= 1
                return True
            rule.times -= 1
            if rule.times == 0:
                self._rules.remove(rule)
            self.fired.append(f"{method} {event}")
        return rule.action(connection, stream)

    def _capture(self, connection: _Connection, stream: int, flags: int, payload: bytes) -> None:
        request = connection.requests.get(stream, b"") + _without_padding(payload, flags & ~_PRIORITY)
        if flags & _END_STREAM:
            connection.requests.pop(stream, None)
            if len(request) >= 5:
                self.captured[connection.methods.get(stream, "")] = request
        elif len(request) <= _CAPTURE_MAX:
            connection.requests[stream] = request


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _reset_stream(connection: _Connection, stream: int) -> None:
    for direction in (UP, DOWN):
        with contextlib.suppress(OSError):
            connection.send(direction, frame(_RST_STREAM, 0, stream, _CANCEL.to_bytes(4, "big")))


def _without_padding(payload: bytes, flags: int) -> bytes:
    start, end = 0, len(payload)
    if flags & _PADDED:
        start, end = 1, end - payload[0]
    return payload[start + 5 if flags & _PRIORITY else start : end]


def _exactly(source: Any, count: int) -> bytes:
    data = source.read(count)
    if len(data) != count:
        raise EOFError
    return bytes(data)
