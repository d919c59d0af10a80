"""Tuples to shards: the tasks that count the loads of a level's shards, and that send each tuple to its shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ballast.ngram import blocks, rows
from ballast.ngram.blocks import Row
from ballast.ngram.counting import Task, scatter
from ballast.ngram.plan import Plan

LOADS = "shard int, load long, extra string"
_ARROW = pa.schema([("shard", pa.int32()), ("load", pa.int64()), ("extra", pa.string())])
_SPLIT_BYTES = 16 << 20


def loads(plan: Plan) -> Task:
    """Loads of the plan's last level, of the tuples of this task; a meter has shard -1."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        meter = blocks.Meter()
        total: Any = np.zeros(plan.levels[-1].shards, dtype=np.int64)
        for row in blocks.read(batches, []):
            before = np.frombuffer(row.extra, dtype="<u4") if row.extra else None
            for block in rows.blocks(row.data):
                total += plan.loads(block.rows[:, : plan.order], before)
                before = block.rows[-1, : plan.order]
        found = np.flatnonzero(total)
        columns = [pa.array(found, pa.int32()), pa.array(total[found], pa.int64()), pa.nulls(len(found), pa.string())]
        yield pa.record_batch(columns, schema=_ARROW)
        yield pa.record_batch([pa.array([v], f.type) for v, f in zip((-1, 0, meter.json("loads").decode()), _ARROW)], schema=_ARROW)

    return blocks.guarded(run)  # type: ignore[no-any-return]


def split(plan: Plan, parts: list[list[int]]) -> Task:
    """Tuples by shard. `parts[level - 1][shard]` is the row's part."""
    offsets = np.concatenate(([0], np.cumsum([level.shards for level in plan.levels])))

    def scattered(some: list[Any]) -> Iterator[Row]:
        tuples = np.concatenate(some)
        level, shard = plan.find(tuples)

        def place(number: int) -> tuple[int, int, int]:
            at = int(np.searchsorted(offsets, number, side="right")) - 1
            here = number - int(offsets[at])
            return parts[at][here], at + 1, here

        yield from scatter(offsets[level - 1] + shard, tuples, "t", plan.order, place)

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
        meter = blocks.Meter()
        some: list[Any] = []
        size = 0
        for row in blocks.read(batches, []):
            for block in rows.blocks(row.data):
                some.append(block.rows)
                size += block.rows.nbytes
            if size >= _SPLIT_BYTES:
                yield from scattered(some)
                some, size = [], 0
        if some:
            yield from scattered(some)
        yield meter.row("split")

    return blocks.guarded(lambda batches: blocks.write(run(batches)))  # type: ignore[no-any-return]
