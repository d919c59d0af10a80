"""The batches of one feed that are not acknowledged yet, in order: what must be sent again when a worker dies.

Bounded by bytes (`bytes_max`), but never below `rows_min` rows: with less than two steps of rows in flight, part-full steps would
depend on timing. One thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from ballast.spark.batches import Batch


class Window:
    def __init__(self, bytes_max: int, rows_min: int) -> None:
        self._bytes_max = bytes_max
        self._rows_min = rows_min
        self._batches: dict[int, Batch] = {}  # by seq, ascending
        self._unsent: list[Batch] = []  # the last ones of _batches
        self._bytes = 0
        self._rows = 0

    def __len__(self) -> int:
        return len(self._batches)

    def has_room(self, batch: Batch) -> bool:
        return not self._batches or self._rows < self._rows_min or self._bytes + batch.bytes <= self._bytes_max

    def add(self, batch: Batch) -> None:
        """REQUIRES has_room and a seq above all before."""
        self._batches[batch.seq] = batch
        self._unsent.append(batch)
        self._bytes += batch.bytes
        self._rows += batch.rows

    def next_unsent(self) -> Optional[Batch]:
        return self._unsent[0] if self._unsent else None

    def unsent_seqs(self) -> list[int]:
        return [batch.seq for batch in self._unsent]

    def mark_sent(self) -> None:
        """The batch of next_unsent is on its way."""
        self._unsent.pop(0)

    def acknowledge(self, seq: int) -> bool:
        """False if the batch is not here: it was acknowledged before."""
        batch = self._batches.pop(seq, None)
        if batch is None:
            return False
        self._unsent = [b for b in self._unsent if b.seq != seq]
        self._bytes -= batch.bytes
        self._rows -= batch.rows
        return True

    def unsend(self, done: Callable[[int], bool]) -> int:
        """A new stream: everything is unsent again, without the batches that are `done` (their number is returned)."""
        finished = [seq for seq in self._batches if done(seq)]
        for seq in finished:
            self.acknowledge(seq)
        self._unsent = list(self._batches.values())
        return len(finished)
