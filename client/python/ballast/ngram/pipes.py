"""Estimation through RDD.pipe(): carrier = "pipe". The streams of smoothing.py as lines of base64, since a pipe of Spark carries lines of text.

For classic sessions only. What a process says on standard error is in the executor's log, not in the error of the job.
"""

from __future__ import annotations

import base64
import collections
import itertools
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ballast.ngram import blocks, rows
from ballast.ngram.smoothing import Known, Runs, shard_streams

_LINE_BYTES = 48 << 10  # A multiple of 3.


def command(binary: str, known: Known, driver_root: str) -> str:
    """Files that travelled are in an executor's working folder; in local mode, where driver and executor are one, in the driver's."""
    flags = " ".join(known.flags(lambda name: f'"$at/{name}"'))
    script = f'for at in . "$0"; do if [ -f "$at/$1" ]; then exec "$at/$1" estimate --lines {flags}; fi; done; '
    script += 'echo "the estimator $1 is not on this executor" >&2; exit 127'
    return shlex.join(["sh", "-c", script, driver_root, binary])


def to_lines(order: int) -> Callable[[Iterable[Any]], Iterator[str]]:
    def lines(parts: Iterable[Any]) -> Iterator[str]:
        found = (blocks.Row(r.part, r.level, r.shard, r.kind, r.rows, r.data) for r in parts if r.kind != "meter")
        # A partition without a shard still has a process.
        streams: Iterable[Any] = shard_streams(found, order, collections.deque())
        first = next(iter(streams := iter(streams)), None)
        chunks = [rows.head(order, 1), rows.end(0)] if first is None else itertools.chain([first], streams)
        for chunk in chunks:
            view = memoryview(chunk)
            for at in range(0, len(view), _LINE_BYTES):
                yield base64.b64encode(view[at : at + _LINE_BYTES]).decode()

    return lines


def from_lines(ranges: Any, parts: list[int]) -> Callable[[Iterable[str]], Iterator[tuple[Any, ...]]]:
    def runs(lines: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        cut = Runs(ranges)
        level = 0
        for event in rows.read_streams(_reader(lines)):
            if isinstance(event, rows.Head):
                level = event.level
            elif isinstance(event, rows.Block):
                cut.add(event)
            else:
                for r, count, data in cut.take():
                    yield (parts[r], level, 0, "run", count, bytearray(data), None)

    return runs


def _reader(lines: Iterable[str]) -> Callable[[int], bytes]:
    source = iter(lines)
    buffer = bytearray()

    def read(size: int) -> bytes:
        while len(buffer) < size:
            line = next(source, None)
            if line is None:
                break
            buffer.extend(base64.b64decode(line))
        data = bytes(buffer[:size])
        del buffer[:size]
        return data

    return read
