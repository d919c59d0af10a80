"""Row streams of the estimator as numpy arrays: docs/NGRAM.md, "Rows". A head, blocks of rows of one kind and order, an end.

A block's rows are uint32 [rows, units]: the words, last one first, then the values. Pure functions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Union

import numpy as np

from ballast.errors import BallastError

MAGIC = b"ballast-ngram 1"
UNK, BOS, EOS = 0, 1, 2

_FRAME = "<BBHI"  # Kind, n, zero, rows.
_FRAME_BYTES = 8
_ROWS_MAX_UNITS = 4 << 20  # Of a block that we write; readers take four times as much.


class Head(NamedTuple):
    order: int
    level: int


class Block(NamedTuple):
    kind: str
    n: int
    rows: Any  # uint32 [rows, units]


class End(NamedTuple):
    rows: int


Event = Union[Head, Block, End]


def value_units(kind: str, n: int) -> int:
    """Values after the words, in units of 4 bytes."""
    if kind == "l":
        return 4 * (n - 1)
    return {"t": 2, "c": 4, "w": 2, "p": 1, "b": 1, "m": 2, "n": 8}[kind]


def row_units(kind: str, n: int) -> int:
    return value_units(kind, n) + (0 if kind == "n" else n)


def head(order: int, level: int) -> bytes:
    return MAGIC + f"\norder {order}\nlevel {level}\n\n".encode()


def block(kind: str, n: int, rows: Any) -> bytes:
    """The rows as framed blocks."""
    step = max(1, _ROWS_MAX_UNITS // rows.shape[1])
    parts = []
    for at in range(0, len(rows), step):
        some = rows[at : at + step]
        parts += [struct.pack(_FRAME, ord(kind), n, 0, len(some)), np.ascontiguousarray(some, dtype="<u4").tobytes()]
    return b"".join(parts)


def end(rows: int) -> bytes:
    return struct.pack(_FRAME, ord("e"), 0, 0, rows & 0xFFFFFFFF)


def stream(order: int, level: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """A whole stream around framed blocks."""
    yield head(order, level)
    rows = 0
    for framed in blocks:
        rows += count_rows(framed)
        yield framed
    yield end(rows)


def frames(framed: Union[bytes, memoryview]) -> Iterator[tuple[str, int, int, int]]:
    """(kind, n, rows, offset of the rows) of blocks that follow each other in memory."""
    at = 0
    while at < len(framed):
        kind, n, _, rows = struct.unpack_from(_FRAME, framed, at)
        yield chr(kind), n, rows, at + _FRAME_BYTES
        at += _FRAME_BYTES + 4 * rows * row_units(chr(kind), n)


def blocks(framed: Union[bytes, memoryview]) -> Iterator[Block]:
    for kind, n, rows, at in frames(framed):
        units = row_units(kind, n)
        yield Block(kind, n, np.frombuffer(framed, dtype="<u4", count=rows * units, offset=at).reshape(rows, units))


def count_rows(framed: Union[bytes, memoryview]) -> int:
    return sum(rows for _, _, rows, _ in frames(framed))


def read_streams(read: Callable[[int], bytes]) -> Iterator[Event]:
    """Everything in streams that follow each other. `read(n)` gives n bytes, fewer only at the end. Raises BallastError(ROWS_CUT_OFF)."""
    while first := read(1):
        yield _read_head(first, read)
        total = 0
        while True:
            kind, n, _, rows = struct.unpack(_FRAME, _exactly(read, _FRAME_BYTES))
            if kind == ord("e"):
                if rows != total & 0xFFFFFFFF:
                    raise BallastError("ROWS_CUT_OFF", f"a stream of the estimator says {rows} rows at its end, there were {total}")
                yield End(total)
                break
            units = row_units(chr(kind), n)
            data = np.frombuffer(_exactly(read, 4 * units * rows), dtype="<u4").reshape(rows, units)
            total += rows
            yield Block(chr(kind), n, data)


def _read_head(first: bytes, read: Callable[[int], bytes]) -> Head:
    text = bytearray(first)
    while not text.endswith(b"\n\n"):
        text += _exactly(read, 1)
    lines = bytes(text).split(b"\n")
    if lines[0] != MAGIC:
        raise BallastError("ROWS_CUT_OFF", f"rows of the estimator begin with {lines[0][:40]!r}, not with {MAGIC!r}")
    values = {words[0]: words[1:] for words in (line.split() for line in lines[1:]) if words}
    return Head(int(values[b"order"][0]), int(values[b"level"][0]))


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) != size:
        raise BallastError("ROWS_CUT_OFF", f"a stream of the estimator was cut off: {size} bytes were due, {len(data)} came")
    return data


def load_counts(rows: Any, column: int) -> Any:
    """The 64-bit counts that begin at a column, as int64."""
    return rows[:, column].astype(np.int64) | (rows[:, column + 1].astype(np.int64) << 32)


def combine(rows: Any, words: int) -> Any:
    """Rows of counts in suffix order, equal words added up. The counts are 64-bit pairs of columns after the words."""
    if len(rows) == 0:
        return rows
    order = np.lexsort(tuple(rows[:, i] for i in range(words - 1, -1, -1)))
    rows = rows[order]
    begins = np.flatnonzero(np.concatenate(([True], (rows[1:, :words] != rows[:-1, :words]).any(axis=1))))
    out = rows[begins].copy()
    for column in range(words, rows.shape[1], 2):
        sums = np.add.reduceat(load_counts(rows, column), begins)
        out[:, column] = (sums & 0xFFFFFFFF).astype(np.uint32)
        out[:, column + 1] = (sums >> 32).astype(np.uint32)
    return out
