"""The sending side of one partition: window, credit, flush, and moving to another worker.

A batch is done when a worker acknowledges it (TRAINED, DUPLICATE or SKIPPED), or when the coordinator says that it was done before.
Until then it stays in the window and is sent again, under the same identity, to whichever worker OpenFeed names. That is safe at any
time: the ledger decides what trains, not the sender. Retried and speculative attempts need no care here for the same reason.

One thread (the task's).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from ballast.channel import BATCH_BYTES_MAX, Connection, backoff_s, check_hello, hello
from ballast.errors import BallastError
from ballast.spark.batches import Batch
from ballast.spark.feed import FeedCounts, FeedTask
from ballast.spark.stream import Broken, FeedStream
from ballast.spark.window import Window
from ballast.v1 import control_pb2, worker_pb2

_CALL_TIMEOUT_S = 10.0


@dataclass
class _Place:
    """FeedPlace, ready for questions."""

    message: Any
    trained: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        ranges = [(0, self.message.trained_below)] + [(r.first, r.first + r.count) for r in self.message.trained]
        self.trained = [(first, end) for first, end in ranges if end > first]

    def is_done(self, seq: int) -> bool:
        return self.message.committed or any(first <= seq < end for first, end in self.trained)

    def is_probe(self, seq: int) -> bool:
        """The last batch of each trained range is sent although it is done: the coordinator compares its fingerprint, which covers all
        batches before it, and so sees when the data changed since then."""
        return not self.message.committed and any(seq == end - 1 for _, end in self.trained)


class PartitionFeed:
    """offer() every batch in order, finish(), and close() in any case."""

    def __init__(self, task: FeedTask, partition: int, attempt: str) -> None:
        self._task = task
        self._partition = partition
        self._attempt = attempt
        self.counts = FeedCounts(partition)
        self._connection: Optional[Connection] = None
        self._place: Optional[_Place] = None
        self._window: Any = None
        self._stream: Optional[FeedStream] = None
        self._avoid: list[str] = []
        self._progress_at = self._left_at = time.monotonic()
        self._moves_without_progress = 0
        # of the stream that is open
        self._welcomed = False
        self._credit = 0
        self._outstanding = 0  # bytes sent whose credit has not come back
        self._flushed = False
        self._ended = False
        self._end: Optional[tuple[int, int]] = None  # batches and rows, once all are offered

    # ---- the task's side

    def offer(self, batch: Batch) -> None:
        """Returns when the batch is in the window (not when it is done)."""
        self._check_size(batch)
        with self._patience_counts():
            self._offer(batch)

    def finish(self, batches: int, rows: int) -> None:
        """Returns when every batch is done."""
        if self._stream is None:
            return
        self._end = (batches, rows)
        with self._patience_counts():
            self._wait(lambda: self._place_committed() or len(self._window) == 0)
        if self._stream is not None:
            self._stream.finish()
            self._stream = None

    def _offer(self, batch: Batch) -> None:
        if self._place is None:
            self._first_place()
        assert self._place is not None
        if self._place.is_done(batch.seq) and not self._place.is_probe(batch.seq):
            self.counts.unsent += 1
            return
        if self._stream is None:
            self._open_stream()
        self._take_events()
        self._wait(lambda: self._place_committed() or self._window.has_room(batch))
        if self._place_committed():
            self.counts.unsent += 1
            return
        self._window.add(batch)
        self._pump()

    @contextlib.contextmanager
    def _patience_counts(self) -> Iterator[None]:
        """How long Spark takes to bring the next rows says nothing about the workers."""
        self._progress_at += time.monotonic() - self._left_at
        try:
            yield
        finally:
            self._left_at = time.monotonic()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ---- placement

    def _first_place(self) -> None:
        self._progress_at = time.monotonic()
        self._place = self._find_place("it cannot be placed")
        place = self._place.message
        self._window = Window(place.window_bytes, max(place.window_rows, self._task.batch_rows))

    def _find_place(self, why: str) -> _Place:
        """Asks the coordinator until it names a worker. Raises BallastError when patience ends."""
        tries = 0
        while True:
            if self._connection is None:
                self._connection = Connection(self._task.address)
            request = control_pb2.FeedRef(
                run=self._task.run, epoch=self._task.epoch, partition=self._partition, attempt=self._attempt, avoid=self._avoid
            )
            try:
                return _Place(self._connection.call("OpenFeed", request, timeout_s=_CALL_TIMEOUT_S))
            except BallastError as e:
                if not (e.retryable or e.code == "RESOURCE_EXHAUSTED"):
                    raise
                self._avoid = []  # perhaps the only worker is one that failed before
                self._give_up_if_late(f"{why}; {e.message}")
            time.sleep(backoff_s(tries))
            tries += 1

    def _open_stream(self) -> None:
        assert self._place is not None
        self._stream = FeedStream(self._place.message.address)
        opening = worker_pb2.FeedUp.Open(
            hello=hello(), run=self._task.run, epoch=self._task.epoch, partition=self._partition, attempt=self._attempt, schema=self._task.schema
        )
        self._stream.send(worker_pb2.FeedUp(open=opening))
        self._welcomed, self._credit, self._outstanding, self._flushed, self._ended = False, 0, 0, False, False

    def _move(self, why: str) -> None:
        """The stream is of no use any more: places the feed again and sends what is not acknowledged."""
        assert self._stream is not None
        self._avoid = (self._avoid + [self._stream.address])[-8:]
        self._stream.close()
        self._stream = None
        self.counts.reopened += 1
        self._give_up_if_late(why)
        self._moves_without_progress += 1
        time.sleep(backoff_s(self._moves_without_progress))
        self._place = self._find_place(why)
        self.counts.duplicates += self._window.unsend(self._place.is_done)
        if not self._place.message.committed and (len(self._window) or self._end is None):
            self._open_stream()

    def _place_committed(self) -> bool:
        return self._place is not None and bool(self._place.message.committed)

    def _give_up_if_late(self, why: str) -> None:
        waited = time.monotonic() - self._progress_at
        if waited < self._task.patience_s:
            return
        raise BallastError(
            "FEED_LOST",
            f"partition {self._partition} of run {self._task.run} made no progress for {waited:.0f} s (server 0 at {self._task.address}): {why}. "
            "The run can be resumed with the same run_id; patience_s= of train() changes how long a task waits",
            {"partition": str(self._partition), "run": self._task.run, "peer": self._task.address},
        )

    # ---- sending

    def _check_size(self, batch: Batch) -> None:
        if batch.bytes > BATCH_BYTES_MAX:
            raise BallastError("BATCH_TOO_LARGE", f"a batch of {batch.rows} rows has {batch.bytes} bytes, the limit is {BATCH_BYTES_MAX}: lower batch_rows")

    def _pump(self) -> None:
        """Sends what credit allows, then End when all was offered and sent."""
        if self._stream is None or not self._welcomed:
            return
        while (batch := self._window.next_unsent()) is not None:
            if batch.bytes > self._credit and self._outstanding:
                return
            rows = worker_pb2.FeedUp.Rows(
                seq=batch.seq, rows=batch.rows, fingerprint=batch.fingerprint, first_row_id=batch.first_row_id
            )
            for source, data in zip(self._task.sources, batch.columns):
                rows.columns.add(name=source.target.name, data=data)
            self._stream.send(worker_pb2.FeedUp(rows=rows))
            self._window.mark_sent()
            self._credit -= batch.bytes
            self._outstanding += batch.bytes
            self._flushed = False
        if self._end is not None and not self._ended:
            self._stream.send(worker_pb2.FeedUp(end=worker_pb2.FeedUp.End(batches=self._end[0], rows=self._end[1])))
            self._ended = True

    def _flush(self) -> None:
        """Before the task waits: the worker must not hold rows back in the hope of more (danger F1)."""
        if self._stream is not None and self._welcomed and not self._flushed and not self._ended:
            self._stream.send(worker_pb2.FeedUp(flush=worker_pb2.FeedUp.Flush()))
            self._flushed = True

    # ---- waiting

    def _wait(self, ready: Callable[[], bool]) -> None:
        start = heard = time.monotonic()
        while not ready():
            self._pump()
            self._flush()
            event = self._stream.next_event(min(1.0, self._task.stall_s)) if self._stream is not None else None
            now = time.monotonic()
            if event is not None:
                heard = now
                self._handle(event)
            elif self._stream is not None and now - heard > self._task.stall_s:
                heard = now
                self._move(f"worker {self._stream.address} said nothing for {self._task.stall_s:.0f} s")
            elif self._stream is not None:
                self._give_up_if_late(f"waiting for worker {self._stream.address}")
        self.counts.worker_s += time.monotonic() - start

    def _take_events(self) -> None:
        """Handles what is there, without waiting."""
        while self._stream is not None and (event := self._stream.next_event(0)) is not None:
            self._handle(event)

    def _handle(self, event: Any) -> None:
        assert self._stream is not None
        if isinstance(event, Broken):
            self._move(event.error.message)
            return
        kind = event.WhichOneof("kind")
        if kind == "welcome":
            self._on_welcome(event.welcome)
        elif kind == "credit":
            self._credit += event.credit.bytes
            self._outstanding -= event.credit.bytes
        elif kind == "ack":
            self._on_ack(event.ack)
        elif kind == "fault":
            self._on_fault(event.fault)
        self._pump()

    def _on_welcome(self, welcome: Any) -> None:
        assert self._stream is not None
        check_hello(welcome.hello, f"worker {self._stream.address}")
        self._welcomed = True
        self._credit = welcome.credit_bytes

    def _on_ack(self, ack: Any) -> None:
        self._progress_at = time.monotonic()
        self._moves_without_progress = 0
        self._avoid = []
        if not self._window.acknowledge(ack.seq):
            return
        if ack.outcome == ack.SKIPPED:
            self.counts.skipped += 1
        elif ack.outcome == ack.DUPLICATE:
            self.counts.duplicates += 1
        else:
            self.counts.trained += 1

    def _on_fault(self, fault: Any) -> None:
        assert self._stream is not None
        if fault.retry:
            self._move(f"worker {self._stream.address} ended the feed: {fault.message} ({fault.reason})")
            return
        facts = {"partition": str(self._partition), "peer": self._stream.address, **fault.metadata}
        text = fault.message
        if fault.reason == "FINGERPRINT_DIFFERS":  # fingerprints are chained, and only the last trained batch was compared
            text += f" (partition {facts['partition']}, seq {facts.get('seq', 'unknown')}; the first row that changed may be in a batch before it)"
        raise BallastError(fault.reason, text, facts, "FAILED_PRECONDITION")
