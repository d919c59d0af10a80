"""Text to tuples, in two tasks with a shuffle between: each counts what it reads, then each counts a bucket of tuples.

A bucket holds whole last two words. So each distinct n-gram of order 2 and more is in one bucket, and the loads of keys are plain sums over the
buckets, while no bucket gets more than the most frequent pair of words (0.6 % of English text).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ballast.ngram import blocks, keys, rows
from ballast.ngram.blocks import Row
from ballast.ngram.estimator import Process
from ballast.ngram.words import joined

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
_SCATTER_BYTES = 16 << 20


def scatter(parts: Any, tuples: Any, kind: str, order: int, place: Callable[[int], tuple[int, int, int]]) -> Iterator[Row]:
    """Rows of tuples by part, each part's in their order. `place(part)`: (part of the row, level, shard)."""
    by_part = np.argsort(parts.astype(np.uint16) if len(parts) and parts.max() < 1 << 16 else parts, kind="stable")
    parts = parts[by_part]
    tuples = tuples[by_part]
    begins: Any = np.flatnonzero(np.concatenate(([True], parts[1:] != parts[:-1]))) if len(parts) else []
    for begin, stop in zip(begins, [*begins[1:], len(parts)]):
        yield Row(*place(int(parts[begin])), kind, int(stop - begin), rows.block(kind, order, tuples[begin:stop]))


def count(order: int, buckets: int, shipped: blocks.Shipped, vocabulary: str, memory_bytes: int, skip_symbols: bool) -> Task:
    """Sentences (words.LINES) to tuples by bucket, combined in the task."""
    placement = keys.placement(buckets)

    def scattered(some: list[Any]) -> Iterator[Row]:
        tuples = np.concatenate(some)
        hashes = keys.xxhash64(tuples[:, 1], keys.xxhash64(tuples[:, 0]))
        yield from scatter(keys.pmod(hashes, buckets), tuples, "t", order, lambda bucket: (placement[bucket], 0, bucket))

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
        meter = blocks.Meter()
        texts = (text for batch in batches if (text := joined(batch.column(0))))
        first = next(texts, None)
        if first is not None:
            with blocks.scratch() as folder:
                flags = ["--order", order, "--ids", shipped.path(vocabulary), "--memory", memory_bytes, "--scratch", folder]
                command = [shipped.binary(), "count", "-", *map(str, flags), *(["--skip-symbols"] if skip_symbols else [])]
                with Process(command) as process:
                    some: list[Any] = []
                    size = 0
                    for event in process.run(itertools.chain([first], texts)):
                        if isinstance(event, rows.Block):
                            some.append(event.rows)
                            size += event.rows.nbytes
                        if size >= _SCATTER_BYTES:
                            yield from scattered(some)
                            some, size = [], 0
                    if some:
                        yield from scattered(some)
                meter.add(process)
        yield meter.row("count")

    return blocks.guarded(lambda batches: blocks.write(run(batches)))  # type: ignore[no-any-return]


def combine(order: int, shipped: blocks.Shipped) -> Task:
    """The parts of a bucket to its tuples, sorted, each once. `extra` of a row is the tuple in front of its first."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
        meter = blocks.Meter()
        meters: list[Row] = []
        parts = blocks.read(batches, meters)
        first = next(parts, None)
        total = 0
        if first is not None:
            with Process([shipped.binary(), "combine"]) as process:
                some: list[Any] = []
                before = b""
                for event in process.run(rows.stream(order, 1, (row.data for row in itertools.chain([first], parts)))):
                    if isinstance(event, rows.Block):
                        some.append(event.rows)
                    if some and (isinstance(event, rows.End) or sum(part.nbytes for part in some) >= blocks.BLOB_BYTES):
                        tuples = np.concatenate(some)
                        total += len(tuples)
                        yield Row(0, 0, first.shard, "t", len(tuples), rows.block("t", order, tuples), before)
                        before = tuples[-1, :order].tobytes()
                        some = []
            meter.add(process)
        meter.facts["tuples"] = total
        yield from meters
        yield meter.row("combine")

    return blocks.guarded(lambda batches: blocks.write(run(batches)))  # type: ignore[no-any-return]
