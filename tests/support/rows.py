"""Rows for test runs, computed from their ids: the same (epoch, partition) always gives the same rows in the same order.

A RowSource stands for the data frame and Spark's shuffle: `partition(epoch, p)` is what a task would get.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class CounterRows:
    """For models.Counter: columns slot and amount. Row `id` adds its amount to slot id % slots."""

    rows: int
    slots: int
    partitions: int
    varied: bool = False  # amount 1 + id % 7, else 1

    def ids(self, epoch: int, partition: int) -> npt.NDArray[np.int64]:
        # Another order in every epoch, as the shuffle by hash gives.
        ids = np.arange(self.rows, dtype=np.int64)
        ids = ids[(ids * 2654435761 + epoch) % 4294967291 % self.partitions == partition]
        return ids[np.argsort((ids * 40503 + epoch * 977) % 65521, kind="stable")]

    def amounts(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return (1 + ids % 7 if self.varied else np.ones_like(ids)).astype(np.float32)

    def partition(self, epoch: int, partition: int, piece: int = 256) -> Iterator[pa.RecordBatch]:
        ids = self.ids(epoch, partition)
        for start in range(0, len(ids), piece):
            part = ids[start : start + piece]
            yield pa.RecordBatch.from_arrays([pa.array(part % self.slots), pa.array(self.amounts(part)), pa.array(part)], names=["c0", "c1", "id"])

    def expected(self, epochs: int = 1) -> npt.NDArray[np.float64]:
        """What every slot holds after each row was trained once an epoch."""
        ids = np.arange(self.rows, dtype=np.int64)
        return np.bincount(ids % self.slots, weights=self.amounts(ids), minlength=self.slots) * epochs


@dataclass(frozen=True)
class VectorRows:
    """For models.Mlp: x float32[features] and a label that depends on it."""

    rows: int
    partitions: int
    features: int = 16
    classes: int = 5

    def partition(self, epoch: int, partition: int, piece: int = 1024) -> Iterator[pa.RecordBatch]:
        ids = np.arange(partition, self.rows, self.partitions, dtype=np.int64)
        random = np.random.Generator(np.random.Philox(key=[epoch, partition]))
        x = random.standard_normal((len(ids), self.features), dtype=np.float32)
        label = (np.abs(x).sum(1) * 3).astype(np.int64) % self.classes
        for start in range(0, len(ids), piece):
            part = slice(start, start + piece)
            flat = pa.array(x[part].reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, self.features)
            yield pa.RecordBatch.from_arrays([column, pa.array(label[part]), pa.array(ids[part])], names=["c0", "c1", "id"])
