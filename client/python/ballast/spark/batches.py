"""Rows become batches of exactly `batch_rows` rows, whatever pieces Arrow delivers. The last two batches of a partition share their rows
evenly, so that none is tiny: batch normalization cannot train on one row.

Runs inside Spark tasks; no gRPC here. The same rows in the same order always give the same batches, that is what lets a retry be
recognised. Incoming record batches have the columns c0, c1, ... (order of the schema) and, unless ids are missing, "id" last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ballast.errors import BallastError
from ballast.fingerprint import digest_integers, digest_texts, fingerprint
from ballast.spark.columns import Source
from ballast.spark.convert import RowFault, to_dense


@dataclass(frozen=True)
class Batch:
    seq: int
    rows: int
    fingerprint: int
    columns: Sequence[bytes]  # order of the schema
    first_row_id: str

    @property
    def bytes(self) -> int:
        """What counts against credit and window: the bytes of the columns."""
        return sum(len(c) for c in self.columns)


@dataclass
class _Rows:
    columns: list[npt.NDArray[Any]]
    ids: Optional[pa.Array]
    count: int


class Packer:
    """Use once: iterate over `batches`, then read the counters. One thread."""

    def __init__(self, sources: Sequence[Source], batch_rows: int, has_ids: bool, partition: int) -> None:
        self._sources = sources
        self._batch_rows = batch_rows
        self._has_ids = has_ids
        self._partition = partition
        self._chain = 0
        self._last_id: Optional[pa.Scalar] = None
        self.batch_count = 0
        self.row_count = 0
        self.duplicate_ids = 0  # rows whose id equals the id of the row before

    def batches(self, incoming: Iterable[pa.RecordBatch]) -> Iterator[Batch]:
        """Raises BallastError naming column, expected, found, partition and row id when a row does not fit."""
        held: list[_Rows] = []
        held_rows = 0
        for record_batch in incoming:
            if record_batch.num_rows == 0:
                continue
            held.append(self._convert(record_batch))
            held_rows += record_batch.num_rows
            if held_rows < 2 * self._batch_rows:
                continue
            rows = _join(held)
            start = 0
            while rows.count - start >= 2 * self._batch_rows:
                yield self._batch(_slice(rows, start, self._batch_rows))
                start += self._batch_rows
            held_rows = rows.count - start
            held = [_slice(rows, start, held_rows)]
        if held_rows:
            yield from self._last(_join(held))

    def _last(self, rows: _Rows) -> Iterator[Batch]:
        """One or two batches of less than 2 x `batch_rows` rows."""
        first = rows.count if rows.count <= self._batch_rows else (rows.count + 1) // 2
        yield self._batch(_slice(rows, 0, first))
        if first < rows.count:
            yield self._batch(_slice(rows, first, rows.count - first))

    def _convert(self, record_batch: pa.RecordBatch) -> _Rows:
        ids = self._ids(record_batch) if self._has_ids else None
        columns = []
        for index, source in enumerate(self._sources):
            try:
                columns.append(to_dense(record_batch.column(index), source.target, source.nested))
            except RowFault as fault:
                raise self._error(source, fault, ids) from None
        return _Rows(columns, ids, record_batch.num_rows)

    def _ids(self, record_batch: pa.RecordBatch) -> pa.Array:
        raw = record_batch.column(record_batch.num_columns - 1)
        ids = raw.cast(pa.int64()) if pa.types.is_integer(raw.type) else _texts(raw)
        if ids.null_count:
            raise BallastError("NULL_VALUE", f"the id column holds null in partition {self._partition}: ids must be unique and stable")
        if self._last_id is not None and self._last_id == ids[0]:
            self.duplicate_ids += 1
        self.duplicate_ids += pc.sum(pc.equal(ids[1:], ids[:-1])).as_py() or 0
        self._last_id = ids[len(ids) - 1]
        return ids

    def _error(self, source: Source, fault: RowFault, ids: Optional[pa.Array]) -> BallastError:
        row_id = _shown(ids, fault.row)
        facts = {"column": source.column, "expected": str(source.target), "found": fault.found, "partition": str(self._partition), "row_id": row_id}
        return BallastError(
            fault.reason,
            f'column "{source.column}" holds {fault.found}, the model expects {source.target}; '
            f"partition {self._partition}, row id {row_id or 'unknown'} is the first such row; nothing of this partition was trained from there on",
            facts,
        )

    def _batch(self, rows: _Rows) -> Batch:
        data = [c.tobytes() for c in rows.columns]
        if rows.ids is None:
            self._chain = 0
        else:
            self._chain = fingerprint([s.target for s in self._sources], data, rows.count, _digest(rows.ids), self._chain)
        batch = Batch(self.batch_count, rows.count, self._chain, data, _shown(rows.ids, 0))
        self.batch_count += 1
        self.row_count += rows.count
        return batch


def _join(held: list[_Rows]) -> _Rows:
    if len(held) == 1:
        return held[0]
    columns = [np.concatenate(parts) for parts in zip(*(h.columns for h in held))]
    ids = pa.concat_arrays([h.ids for h in held if h.ids is not None]) if held[0].ids is not None else None
    return _Rows(columns, ids, sum(h.count for h in held))


def _slice(rows: _Rows, start: int, count: int) -> _Rows:
    ids = rows.ids.slice(start, count) if rows.ids is not None else None
    return _Rows([c[start : start + count] for c in rows.columns], ids, count)


def _texts(array: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:  # the session's time zone is no part of an instant
        array = array.cast(pa.timestamp("us", tz="UTC"))
    binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    return array.cast(pa.large_binary()) if binary else array.cast(pa.large_string()).cast(pa.large_binary())


def _digest(ids: pa.Array) -> int:
    if pa.types.is_int64(ids.type):
        return digest_integers(ids.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    _, offsets, data = ids.buffers()
    ends = np.frombuffer(offsets, dtype="<i8")[ids.offset : ids.offset + len(ids) + 1]
    texts = data.slice(int(ends[0]), int(ends[-1] - ends[0])).to_pybytes() if data is not None else b""
    return digest_texts(np.diff(ends).astype("<i8").tobytes(), texts)


def _shown(ids: Optional[pa.Array], row: int) -> str:
    if ids is None or row >= len(ids):
        return ""
    value = ids[row].as_py()
    return value.decode("utf-8", "replace")[:200] if isinstance(value, bytes) else str(value)
