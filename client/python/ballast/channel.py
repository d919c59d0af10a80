"""Connections: gRPC channels with the project's limits, and calls to server 0 that fail with a BallastError.

gRPC is not safe across fork, and PySpark forks its Python workers: tasks open their own connections, and the driver's never travel.
Threads: a Connection may be used from any thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Optional, TypeVar

import grpc

from ballast.errors import BallastError, from_rpc
from ballast.version import PROTOCOL, RELEASE

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0
MESSAGE_BYTES_MAX = 20 << 20  # the largest message is one batch of rows: at most 16 MiB and its frame
BATCH_BYTES_MAX = 16 << 20

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 60_000),  # servers permit one ping a minute
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.enable_retries", 0),  # retries are ours: they know what may be repeated
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),  # one task's broken connection is not another's
]


def open_channel(address: str) -> grpc.Channel:
    """A plaintext channel to "host:port" or any gRPC name ("dns:///ballast.ml:7070"). Connects when it is first used."""
    return grpc.insecure_channel(address, options=_OPTIONS)


def hello() -> Any:
    from ballast.v1 import control_pb2

    return control_pb2.Hello(protocol=PROTOCOL, release=RELEASE)


def check_hello(theirs: Any, peer: str) -> None:
    """Raises BallastError(PROTOCOL_DIFFERS) that names both sides and the remedy."""
    if theirs.protocol != PROTOCOL:
        raise BallastError(
            "PROTOCOL_DIFFERS",
            f"{peer} speaks protocol {theirs.protocol} (release {theirs.release}), this client speaks {PROTOCOL} (release {RELEASE}): "
            "install the client of the server's release",
        )


def backoff_s(attempt: int, longest_s: float = 5.0) -> float:
    """0.1 s, doubled each time, at most `longest_s`, and a random part so that tasks do not come back in step."""
    return min(longest_s, 0.1 * 2.0 ** min(attempt, 10)) * random.uniform(0.7, 1.3)


def patiently(attempt: Callable[[], T], what: str, patience_s: float) -> T:
    """Repeats an idempotent `attempt` while it fails with errors that may pass, for `patience_s`."""
    deadline = time.monotonic() + patience_s
    tries = 0
    while True:
        try:
            return attempt()
        except BallastError as e:
            error = e
        pause = backoff_s(tries)
        tries += 1
        if not error.retryable or time.monotonic() + pause > deadline:
            if tries > 1:
                error = BallastError(error.reason, f"{what} failed for {patience_s:.0f} s: {error.message}", error.metadata, error.code)
            raise error from None
        time.sleep(pause)


class Connection:
    """A connection to server 0 (the Control service)."""

    def __init__(self, address: str) -> None:
        from ballast.v1 import control_pb2_grpc

        self.address = address
        self.channel = open_channel(address)
        self._stub: Any = control_pb2_grpc.ControlStub(self.channel)

    def call(self, method: str, request: Any, timeout_s: float = 30.0, patience_s: float = 0.0) -> Any:
        """One unary call. Errors that may pass are retried for `patience_s`: only for calls that are idempotent."""
        return patiently(lambda: self._once(method, request, timeout_s), method, patience_s)

    def upload(self, method: str, requests: Callable[[], Iterator[Any]], timeout_s: float = 600.0, patience_s: float = 0.0) -> Any:
        """One client-streaming call; `requests` makes the stream again for each try."""
        return patiently(lambda: self._once(method, requests(), timeout_s), method, patience_s)

    def stream(self, method: str, request: Any, timeout_s: float = 60.0) -> Iterator[Any]:
        """One server-streaming call."""
        call = getattr(self._stub, method)(request, timeout=timeout_s)
        try:
            yield from call
        except grpc.RpcError as e:
            raise from_rpc(e, self.address) from None
        finally:
            call.cancel()

    def check(self) -> Any:
        """Reaches the server within CONNECT_TIMEOUT_S and returns its ClusterState. Raises BallastError, never hangs."""
        from ballast.v1 import control_pb2

        try:
            state = self.call("Cluster", control_pb2.ClusterRequest(), timeout_s=CONNECT_TIMEOUT_S)
        except BallastError as e:
            if e.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise BallastError("UNREACHABLE", f"no Ballast server answers at {self.address}: {e.message}", e.metadata, e.code) from None
            if e.code == "UNIMPLEMENTED":
                raise BallastError("UNREACHABLE", f"what listens at {self.address} is not a Ballast server 0: {e.message}", e.metadata, e.code) from None
            raise
        if state.release and state.release.split(".")[0] != RELEASE.split(".")[0]:
            raise BallastError(
                "PROTOCOL_DIFFERS",
                f"the server at {self.address} has release {state.release}, this client {RELEASE}: install the client of the server's release",
            )
        return state

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: "Optional[TracebackType]") -> None:
        self.close()

    def _once(self, method: str, request: Any, timeout_s: float) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=timeout_s)
        except grpc.RpcError as e:
            raise from_rpc(e, self.address) from None
