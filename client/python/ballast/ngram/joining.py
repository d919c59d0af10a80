"""Runs of probabilities and backoffs to the model: each task merges a range of last words, which is a stretch of every order's n-grams."""

from __future__ import annotations

import collections
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ballast.errors import BallastError
from ballast.ngram import blocks, estimator, rows
from ballast.ngram.blocks import Row
from ballast.ngram.counting import Task
from ballast.ngram.smoothing import Runs

TABLE = "n int, words array<int>, log_p float, log_backoff float"
_TABLE = pa.schema([("n", pa.int32()), ("words", pa.list_(pa.int32())), ("log_p", pa.float32()), ("log_backoff", pa.float32())])
_TABLE_ROWS = 1 << 16


def range_starts(weights: Any, ranges: int) -> Any:
    """The first word of each range but the first, so that the weights of words are spread evenly."""
    total = np.cumsum(np.asarray(weights, dtype=np.float64))
    cuts = np.searchsorted(total, total[-1] * np.arange(1, ranges) / ranges, side="left") + 1
    return np.minimum(cuts, len(total)).astype(np.uint32)


def join(order: int, shipped: blocks.Shipped, vocabulary: str, zero: str, ranges: Any, arpa: bool, table: bool) -> Task:
    """The runs of one range, and a row of kind "range" that says which it is, to ARPA text and model rows."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[Row]:
        meter = blocks.Meter()
        meters: list[Row] = []
        here = -1
        with blocks.scratch() as folder:
            files: list[str] = []
            for row in blocks.read(batches, meters):
                if row.kind == "range":
                    here = row.shard
                else:
                    files.append(_write_run(folder, len(files), order, row.data, row.rows))
            if here >= 0:
                files += _zero_run(folder, len(files), order, shipped.path(zero), ranges, here)
                yield from _merge(folder, files, here, meter)
        yield from meters
        yield meter.row("join")

    def _merge(folder: str, files: list[str], here: int, meter: blocks.Meter) -> Iterator[Row]:
        if not files:
            return
        flags = ["--vocab", shipped.path(vocabulary)]
        flags += ["--out", os.path.join(folder, "arpa")] if arpa else []
        flags += ["--rows", os.path.join(folder, "model")] if table else []
        with estimator.Process([shipped.binary(), "join", *files, *flags]) as process:
            process.output()
        meter.add(process)
        if arpa:
            yield from _sections(os.path.join(folder, "arpa"), order, here, meter)
        if table:
            with open(os.path.join(folder, "model"), "rb") as model:
                for event in rows.read_streams(model.read):
                    if isinstance(event, rows.Block):
                        yield Row(0, event.n, here, "m", len(event.rows), rows.block("m", event.n, event.rows))

    return blocks.guarded(lambda batches: blocks.write(run(batches)))  # type: ignore[no-any-return]


def _write_run(folder: str, number: int, order: int, data: Any, count: int) -> str:
    path = os.path.join(folder, f"run.{number}")
    with open(path, "wb") as out:
        out.write(rows.head(order, 0))
        out.write(data)
        out.write(rows.end(count))
    return path


def _zero_run(folder: str, number: int, order: int, zero: str, ranges: Any, here: int) -> list[str]:
    """The rows of the 0-shards that are in this range."""
    runs = Runs(ranges)
    with open(zero, "rb") as stream:
        for event in rows.read_streams(stream.read):
            if isinstance(event, rows.Block):
                runs.add(event)
    return [_write_run(folder, number, order, data, count) for r, count, data in runs.take() if r == here]


def _sections(path: str, order: int, here: int, meter: blocks.Meter) -> Iterator[Row]:
    """The lines of each order, in pieces with their offset in the section."""
    sizes: dict[str, int] = collections.defaultdict(int)
    counts = {}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for line in text[: text.find(b"\n\n")].decode().splitlines()[1:]:
            counts[line.split()[1].split("=")[0]] = int(line.split("=")[1])
        begin = 0
        for n in range(1, order + 1):
            marker = f"\n\\{n}-grams:\n".encode()
            begin = text.find(marker, begin) + len(marker)
            following = f"\n\\{n + 1}-grams:\n".encode() if n < order else b"\n\\end\\\n"
            stop = text.find(following, begin)
            for at in range(begin, stop, blocks.BLOB_BYTES):
                piece = text[at : min(stop, at + blocks.BLOB_BYTES)]
                yield Row(0, n, here, "arpa", at - begin, piece)
            sizes[str(n)] = max(0, stop - begin)
    meter.facts.update(range=here, arpa_bytes=dict(sizes), ngrams=counts)


def tabulate(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Model rows to columns: words first one first."""
    for row in blocks.read(batches, []):
        for block in rows.blocks(row.data):
            for at in range(0, len(block.rows), _TABLE_ROWS):
                yield table_batch(block.n, block.rows[at : at + _TABLE_ROWS])


def table_batch(n: int, model: Any) -> pa.RecordBatch:
    words = pa.array(np.ascontiguousarray(model[:, n - 1 :: -1] if n == model.shape[1] else model[:, :n][:, ::-1]).reshape(-1).astype(np.int32))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, len(model) * n + 1, n, dtype=np.int32)), words)
    values = [pa.array(np.ascontiguousarray(model[:, n + i]).view(np.float32)) for i in (0, 1)]
    return pa.record_batch([pa.array(np.full(len(model), n, dtype=np.int32)), lists, *values], schema=_TABLE)


def write_arpa(path: str, order: int, meters: list[dict[str, Any]], pieces: Iterator[tuple[int, int, int, Any]]) -> list[int]:
    """All ranges' sections into one file: `pieces` are (order, range, offset, text) in any order. Returns the numbers of n-grams."""
    ranges = sorted((m for m in meters if m["task"] == "join" and "range" in m), key=lambda m: int(m["range"]))
    if len({m["range"] for m in ranges}) != len(ranges):
        raise BallastError("STAGE_DAMAGED", "a range of the model is there twice; remove the work folder and run again")
    counts = [sum(int(m["ngrams"].get(str(n), 0)) for m in ranges) for n in range(1, order + 1)]
    begins: dict[tuple[int, int], int] = {}
    temporary = f"{path}.part.{os.getpid()}"
    try:
        with open(temporary, "wb") as out:
            out.write(b"\\data\\\n" + b"".join(b"ngram %d=%d\n" % (n + 1, c) for n, c in enumerate(counts)))
            for n in range(1, order + 1):
                out.write(b"\n\\%d-grams:\n" % n)
                at = out.tell()
                for meter in ranges:
                    begins[n, int(meter["range"])] = at
                    at += int(meter["arpa_bytes"].get(str(n), 0))
                out.seek(at)
            out.write(b"\n\\end\\\n")
            written = 0
            for n, r, offset, piece in pieces:
                out.seek(begins[n, r] + offset)
                written += out.write(piece)
        due = sum(sum(map(int, m["arpa_bytes"].values())) for m in ranges)
        if written != due:
            raise BallastError("STAGE_DAMAGED", f"the model's stage holds {written} bytes of text where its tasks wrote {due}")
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return counts
