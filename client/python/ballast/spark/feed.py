"""What a Spark task does: sends one partition of one epoch to the workers and returns when every row of it is accounted for.

The driver imports this file too; gRPC's threads start only inside the task, because PySpark forks its Python workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Callable

from ballast.errors import BallastError, TaskFault

if TYPE_CHECKING:
    import pyarrow as pa

    from ballast.spark.batches import Batch
    from ballast.spark.columns import Source


@dataclass(frozen=True)
class FeedTask:
    """All that a task must know; pickled into it."""

    address: str  # of server 0
    run: str
    epoch: int
    sources: "tuple[Source, ...]"
    schema: str
    batch_rows: int
    has_ids: bool
    patience_s: float  # without any progress for so long: give up
    stall_s: float  # without any word from the worker while waiting: try another one


@dataclass
class FeedCounts:
    """What the driver gets back for a partition: one row."""

    partition: int
    batches: int = 0
    rows: int = 0
    duplicate_ids: int = 0
    trained: int = 0  # batches by outcome of their acknowledgement to this attempt
    duplicates: int = 0
    skipped: int = 0
    unsent: int = 0  # batches that were known to be done, and so were not sent
    reopened: int = 0  # feeds that had to move
    spark_s: float = 0.0  # waiting for rows from Spark
    pack_s: float = 0.0
    worker_s: float = 0.0  # waiting for credit and acknowledgements


COUNTS_SCHEMA = (
    "partition int, batches long, rows long, duplicate_ids long, trained long, duplicates long, skipped long, unsent long, "
    "reopened long, spark_s double, pack_s double, worker_s double"
)


def feed_function(task: FeedTask) -> Callable[[Iterator["pa.RecordBatch"]], Iterator["pa.RecordBatch"]]:
    """The function for mapInArrow."""

    def feed(incoming: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
        from pyspark import TaskContext

        context: Any = TaskContext.get()
        partition = context.partitionId()
        attempt = f"stage {context.stageId()} task {context.taskAttemptId()}"
        try:
            counts = feed_partition(task, partition, attempt, incoming)
        except BallastError as e:
            raise TaskFault(e) from None
        yield _as_arrow(counts)

    return feed


def feed_partition(task: FeedTask, partition: int, attempt: str, incoming: "Iterable[pa.RecordBatch]") -> FeedCounts:
    """Sends all rows of `incoming`. Raises BallastError when the partition cannot be finished."""
    from ballast.spark.batches import Packer
    from ballast.spark.sender import PartitionFeed

    packer = Packer(task.sources, task.batch_rows, task.has_ids, partition)
    feed = PartitionFeed(task, partition, attempt)
    clock = _Clock(feed.counts)
    try:
        for batch in clock.packed(packer, incoming):
            feed.offer(batch)
        feed.finish(packer.batch_count, packer.row_count)
    finally:
        feed.close()
    feed.counts.batches, feed.counts.rows = packer.batch_count, packer.row_count
    feed.counts.duplicate_ids = packer.duplicate_ids
    return feed.counts


def _as_arrow(counts: FeedCounts) -> "pa.RecordBatch":
    import pyarrow as pa

    kinds = {"int": pa.int32(), "long": pa.int64(), "double": pa.float64()}
    names = [part.split() for part in COUNTS_SCHEMA.split(", ")]
    values = asdict(counts)
    return pa.RecordBatch.from_arrays([pa.array([values[n]], kinds[k]) for n, k in names], names=[n for n, _ in names])


class _Clock:
    """Splits the time of a task into waiting for Spark and packing; waiting for workers is counted where it happens."""

    def __init__(self, counts: FeedCounts) -> None:
        self._counts = counts

    def packed(self, packer: Any, incoming: "Iterable[pa.RecordBatch]") -> "Iterator[Batch]":
        batches = packer.batches(self._timed(incoming))
        while True:
            start, spark_before = time.monotonic(), self._counts.spark_s
            batch = next(batches, None)
            self._counts.pack_s += time.monotonic() - start - (self._counts.spark_s - spark_before)
            if batch is None:
                return
            yield batch

    def _timed(self, incoming: "Iterable[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        source = iter(incoming)
        while True:
            start = time.monotonic()
            record_batch = next(source, None)
            self._counts.spark_s += time.monotonic() - start
            if record_batch is None:
                return
            yield record_batch
