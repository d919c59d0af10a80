"""The one table that travels between the stages: each row holds blocks of the estimator's rows, or the meter of a task.

Rows of n-grams travel as blocks, not one by one: Spark's shuffle, retries and Parquet then cost per block of up to a megabyte.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

import pyarrow as pa

from ballast.errors import BallastError, TaskFault

# part: where df.repartition puts the row (keys.placement). kind: what `data` holds: "t" tuples, "sum" and "kept" of adjust, "run" of estimate,
# "arpa" text, "m" model rows, "meter". rows: how many rows of n-grams; of text its offset. extra: the tuple before the first, or a meter's JSON.
SCHEMA = "part int, level int, shard int, kind string, rows long, data binary, extra binary"
ARROW = pa.schema(
    [
        ("part", pa.int32()),
        ("level", pa.int32()),
        ("shard", pa.int32()),
        ("kind", pa.string()),
        ("rows", pa.int64()),
        ("data", pa.binary()),
        ("extra", pa.binary()),
    ]
)
BLOB_BYTES = 1 << 20
_BATCH_BYTES = 8 << 20


class Row(NamedTuple):
    part: int
    level: int
    shard: int
    kind: str
    rows: int
    data: Any
    extra: Optional[bytes] = None


def read(batches: Iterable[pa.RecordBatch], meters: list[Row]) -> Iterator[Row]:
    """The rows of a partition; meters of earlier tasks are put aside."""
    for batch in batches:
        small = [batch.column(i).to_pylist() for i in range(5)]
        for i, (part, level, shard, kind, count) in enumerate(zip(*small)):
            extra = batch.column(6)[i].as_py()
            row = Row(part, level, shard, kind, count, memoryview(batch.column(5)[i].as_buffer()), extra)
            if kind == "meter":
                meters.append(row._replace(data=b""))
            else:
                yield row


def write(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    some: list[Row] = []
    size = 0
    for row in rows:
        some.append(row)
        size += len(row.data)
        if size >= _BATCH_BYTES:
            yield _batch(some)
            some, size = [], 0
    if some:
        yield _batch(some)


def _batch(some: list[Row]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column, type=field.type) for column, field in zip(zip(*some), ARROW)], schema=ARROW)


class Meter:
    """What a task used: its Python's CPU time and the estimator's. One row of the task's own output, so only of attempts that count."""

    def __init__(self) -> None:
        self._began = time.time()
        self._cpu = time.process_time()
        self._estimator_cpu = 0.0
        self._rss_peak = 0
        self.facts: dict[str, Any] = {}

    def add(self, process: Any) -> None:
        self._estimator_cpu += process.cpu_s
        self._rss_peak = max(self._rss_peak, process.rss_peak_bytes)

    def json(self, task: str) -> bytes:
        doc = {
            "task": task,
            "id": os.urandom(8).hex(),
            "began": self._began,
            "seconds": time.time() - self._began,
            "python_cpu_s": time.process_time() - self._cpu,
            "estimator_cpu_s": self._estimator_cpu,
            "rss_peak_bytes": self._rss_peak + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "estimator_rss_peak_bytes": self._rss_peak,
            **self.facts,
        }
        return json.dumps(doc).encode()

    def row(self, task: str) -> Row:
        return Row(0, 0, -1, "meter", 0, b"", self.json(task))


class Shipped:
    """Files of the driver on this executor."""

    def __init__(self, binary: str) -> None:
        self.name = binary

    def binary(self) -> str:
        path = self.path(self.name, "the estimator")
        if not os.access(path, os.X_OK):
            os.chmod(path, 0o755)  # Its own copy.
        return path

    def path(self, name: str, what: str = "a file of this application") -> str:
        from pyspark import SparkFiles

        path = os.path.join(SparkFiles.getRootDirectory(), name)
        if not os.path.isfile(path):
            message = f"{what} ({name}) is not on the executor {socket.gethostname()}: it travels with the application, but there is no {path}"
            raise TaskFault(BallastError("ESTIMATOR_NOT_FOUND" if name == self.name else "FILE_NOT_FOUND", message))
        return path


def scratch() -> Any:
    """A folder that ends with the task, on Spark's local disk."""
    folder = (os.environ.get("SPARK_LOCAL_DIRS") or os.environ.get("LOCAL_DIRS") or "").split(",")[0]
    return tempfile.TemporaryDirectory(prefix="ballast-ngram-", dir=folder or None, ignore_cleanup_errors=True)


def guarded(function: Any) -> Any:
    """The function of a task, whose BallastErrors reach the driver as such."""

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from function(batches)
        except BallastError as e:
            raise TaskFault(e) from e

    return task
