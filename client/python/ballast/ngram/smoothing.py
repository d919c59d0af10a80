"""Shards through the estimator: counted (adjust), estimated. A task gets its shards one after the other and feeds them to one process.

The pipe is a subprocess of the task whose three streams are drained at once; pipes.py sends the same bytes through RDD.pipe().
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ballast.ngram import blocks, rows
from ballast.ngram.blocks import Row
from ballast.ngram.counting import Task
from ballast.ngram.estimator import Process

_SUMS_ROWS = 1 << 20
_RUN_BYTES = 8 << 20


def shard_streams(parts: Iterable[Row], order: int, begun: Any) -> Iterator[Any]:
    """Rows sorted by level and shard to one stream for each shard; `begun` says which, in this order."""
    for (level, shard), group in itertools.groupby(parts, key=lambda row: (row.level, row.shard)):
        begun.append((level, shard))
        yield rows.head(order, level)
        total = 0
        for row in group:
            total += row.rows
            yield row.data
        yield rows.end(total)


class Sums:
    """What the shards of a task add to the sums of all: kept small by adding up in the task."""

    def __init__(self, order: int) -> None:
        self._order = order
        self._counts: dict[int, list[Any]] = collections.defaultdict(list)
        self._sizes: collections.Counter[int] = collections.Counter()
        self._census: dict[int, Any] = collections.defaultdict(lambda: np.zeros(4, dtype=np.int64))
        self._last: list[Any] = []

    def add(self, block: rows.Block) -> None:
        if block.kind == "n":
            self._census[block.n] += sum(np.stack([rows.load_counts(row[None], c)[0] for c in (0, 2, 4, 6)]) for row in block.rows)
        elif block.kind == "l":
            self._last.append(block.rows)
        else:
            self._counts[block.n].append(block.rows)
            self._sizes[block.n] += len(block.rows)
            if self._sizes[block.n] > _SUMS_ROWS:
                self._counts[block.n] = [rows.combine(np.concatenate(self._counts[block.n]), block.n)]
                self._sizes[block.n] = len(self._counts[block.n][0])

    def rows(self) -> Iterator[Row]:
        """Level k has the counts of k-grams; the rest is of no level."""
        for n, parts in sorted(self._counts.items()):
            counts = rows.combine(np.concatenate(parts), n)
            step = max(1, blocks.BLOB_BYTES // (4 * counts.shape[1]))
            for at in range(0, len(counts), step):
                some = counts[at : at + step]
                yield Row(0, n, -1, "sum", len(some), rows.block("c", n, some))
        rest = b""
        for n, census in sorted(self._census.items()):
            values = np.stack([census & 0xFFFFFFFF, census >> 32], axis=1).astype("<u4").reshape(1, 8)
            rest += rows.block("n", n, values)
        for last in self._last:
            rest += rows.block("l", self._order, last)
        if rest:
            yield Row(0, 1, -1, "sum", rows.count_rows(rest), rest)


def adjust(order: int, shipped: blocks.Shipped, cutoffs: list[int], allowed: str = "") -> Task:
    """Shards to their share of the sums; with cutoffs or allowed words also to their kept n-grams and wildcard rows."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
        meter = blocks.Meter()
        meters: list[Row] = []
        parts = blocks.read(batches, meters)
        first = next(parts, None)
        kept = wildcards = 0
        if first is not None:
            begun: Any = collections.deque()
            sums = Sums(order)
            flags = ["--collapse"] if cutoffs or allowed else []
            flags += ["--prune", ",".join(map(str, cutoffs))] if cutoffs else []
            flags += ["--allowed", shipped.path(allowed)] if allowed else []
            with Process([shipped.binary(), "adjust", *flags]) as process:
                here = (0, 0)
                for event in process.run(shard_streams(itertools.chain([first], parts), order, begun)):
                    if isinstance(event, rows.Head):
                        here = begun.popleft()
                    elif isinstance(event, rows.Block):
                        if event.kind in "nl" or (event.kind == "c" and event.n == here[0]):
                            sums.add(event)
                        else:
                            kept += len(event.rows) if event.kind == "c" else 0
                            wildcards += len(event.rows) if event.kind == "w" else 0
                            yield Row(first.part, *here, "kept", len(event.rows), rows.block(event.kind, event.n, event.rows))
            meter.add(process)
            yield from sums.rows()
        meter.facts.update(kept=kept, wildcards=wildcards)
        yield from meters
        yield meter.row("adjust")

    return blocks.guarded(lambda batches: blocks.write(run(batches)))  # type: ignore[no-any-return]


class Known(NamedTuple):
    """Files that travelled, with what the estimation of any shard must know."""

    head: str
    zero: str
    allowed: str = ""  # Empty: all words are.

    def flags(self, path: Callable[[str], str]) -> list[str]:
        return [text for name, file in self._asdict().items() if file for text in (f"--{name}", path(file))]


def estimate(order: int, shipped: blocks.Shipped, known: Known, ranges: Any, parts: list[int]) -> Task:
    """Shards to probabilities and backoffs, cut into ranges of the last word: each cut is a sorted run. `parts[range]` is the row's part."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
        meter = blocks.Meter()
        meters: list[Row] = []
        shards = blocks.read(batches, meters)
        first = next(shards, None)
        if first is not None:
            begun: Any = collections.deque()
            with Process([shipped.binary(), "estimate", *known.flags(shipped.path)]) as process:
                here = (0, 0)
                runs = Runs(ranges)
                for event in process.run(shard_streams(itertools.chain([first], shards), order, begun)):
                    if isinstance(event, rows.Head):
                        here = begun.popleft()
                    elif isinstance(event, rows.Block):
                        runs.add(event)
                    if isinstance(event, rows.End) or runs.size >= _RUN_BYTES:
                        for r, count, data in runs.take():
                            yield Row(parts[r], *here, "run", count, data)
            meter.add(process)
        yield from meters
        yield meter.row("estimate")

    return blocks.guarded(lambda batches: blocks.write(run(batches)))  # type: ignore[no-any-return]


class Runs:
    """Blocks of one shard cut by the last word of their rows, which are sorted by it. `ranges`: the first word of each range but the first."""

    def __init__(self, ranges: Any) -> None:
        self._ranges = ranges
        self._parts: list[list[bytes]] = [[] for _ in range(len(ranges) + 1)]
        self._counts = [0] * (len(ranges) + 1)
        self.size = 0

    def add(self, block: rows.Block) -> None:
        cuts = np.searchsorted(block.rows[:, 0], self._ranges, side="left").tolist()
        for r, (begin, stop) in enumerate(zip([0, *cuts], [*cuts, len(block.rows)])):
            if begin < stop:
                self._parts[r].append(rows.block(block.kind, block.n, block.rows[begin:stop]))
                self._counts[r] += stop - begin
        self.size += block.rows.nbytes

    def take(self) -> Iterator[tuple[int, int, bytes]]:
        for r, parts in enumerate(self._parts):
            if parts:
                yield r, self._counts[r], b"".join(parts)
                parts.clear()
                self._counts[r] = 0
        self.size = 0
