"""One Feed stream to one worker: messages out, events in. Knows nothing of windows and retries.

gRPC writes from a thread of its own and a second thread reads; both only touch queues, so the task's thread sees one event at a time
(`next_event`). A stream ends once, with the event Broken; close() from the task's thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import grpc

from ballast.channel import open_channel
from ballast.errors import BallastError, from_rpc


@dataclass(frozen=True)
class Broken:
    """The stream is over; `error` says why. After End and the last acknowledgement that is the normal end."""

    error: BallastError


class FeedStream:
    def __init__(self, address: str) -> None:
        from ballast.v1 import worker_pb2_grpc

        self.address = address
        self._out: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._events: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._channel = open_channel(address)
        stub: Any = worker_pb2_grpc.WorkerStub(self._channel)
        self._call = stub.Feed(self._outgoing())
        self._reader = threading.Thread(target=self._read, name=f"feed {address}", daemon=True)
        self._reader.start()

    def send(self, message: Any) -> None:
        """Never blocks: credit bounds what waits here."""
        self._out.put(message)

    def next_event(self, timeout_s: float) -> Optional[Any]:
        """A FeedDown, Broken, or None when nothing came in time (0: only what is there)."""
        try:
            return self._events.get(timeout=timeout_s) if timeout_s > 0 else self._events.get_nowait()
        except queue.Empty:
            return None

    def finish(self, timeout_s: float = 1.0) -> None:
        """Half-closes, gives the worker a moment to end the stream in order, and closes."""
        self._out.put(None)
        self._reader.join(timeout_s)
        self.close()

    def close(self) -> None:
        self._out.put(None)
        self._call.cancel()
        self._channel.close()

    def _outgoing(self) -> Iterator[Any]:
        while (message := self._out.get()) is not None:
            yield message

    def _read(self) -> None:
        error = BallastError("FEED_CLOSED", f"worker {self.address} closed the feed", code="UNAVAILABLE")
        try:
            for down in self._call:
                self._events.put(down)
        except grpc.RpcError as e:
            error = from_rpc(e, f"worker {self.address}")
        except Exception as e:  # a cancelled call may raise anything while its channel closes
            error = BallastError("FEED_CLOSED", f"the feed to worker {self.address} broke: {e!r}", code="UNAVAILABLE")
        self._events.put(Broken(error))
