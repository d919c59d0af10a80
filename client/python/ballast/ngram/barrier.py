"""The barrier, on the driver: the sums over all shards, the discounts, and the 0-shards level by level. No probability is computed before.

It holds the counts of the level-grams: a row for each word, and for each bigram and trigram whose history was opened.
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ballast.errors import BallastError
from ballast.ngram import rows
from ballast.ngram.config import Model
from ballast.ngram.estimator import Process
from ballast.ngram.stages import Stage


class Barrier:
    """`run` once. `flags` are those of `ballast-ngram discounts`; `marks` say which words n-grams may have, empty: all."""

    def __init__(self, engine: Any, stage: Stage, model: Model, flags: list[str], marks: bytes) -> None:
        self._binary = str(engine.binary)
        self._stage = stage
        self._model = model
        self._flags = flags
        self._folder: pathlib.Path = engine.file(stage.folder)
        self._folder.mkdir(exist_ok=True)
        self._marks = marks

    def run(self, sums: Iterable[tuple[int, bytes]]) -> dict[str, bytes]:
        """{file: content}: the "head" of all shards, the "zero" rows of all levels, and the "weights" of words."""
        head = self._discounts(self._adjusted(sums))
        lines = [line.split() for line in head.decode().splitlines()]
        self._stage.doc["discounts"] = [[float(d) for d in line[2:]] for line in lines if line and line[0] == "discount"]
        zero = self._estimate_zero()
        return {"head": head, "zero": b"".join(rows.stream(self._model.order, 0, zero)), "weights": self._word_weights()}

    def _adjusted(self, sums: Iterable[tuple[int, bytes]]) -> list[pathlib.Path]:
        """A stream for each level, as if all its shards were one."""
        levels: dict[int, list[bytes]] = {}
        for level, data in sums:
            levels.setdefault(level, []).append(data)
        paths = []
        for level, parts in sorted(levels.items()):
            paths.append(self._folder / f"adjusted.{level}")
            paths[-1].write_bytes(b"".join(rows.stream(self._model.order, level, parts)))
        return paths

    def _discounts(self, adjusted: list[pathlib.Path]) -> bytes:
        try:
            return self._estimator("discounts", *adjusted, "--zero", self._folder, *self._flags)
        except BallastError as e:
            if e.metadata.get("status") != "2":
                raise
            said = e.metadata["said"].split(": ", 1)[-1]
            for flag, key in (("pass --discount-fallback", "set discount_fallback"), ("--discount-fallback", "discount_fallback")):
                said = said.replace(flag, key)
            raise BallastError("NO_DISCOUNT", f"[model.{self._model.name}]: {said}") from e

    def _estimate_zero(self) -> list[bytes]:
        """Each level upon the one below."""
        zero: list[bytes] = []
        allowed = ["--allowed", self._folder / "allowed"] if self._marks else []
        if self._marks:
            (self._folder / "allowed").write_bytes(self._marks)
        self._stage.doc["zero_rows"] = []
        level = 1
        while (self._folder / f"zero.{level}").exists():
            below = ["--zero", self._folder / f"p.{level - 1}"] if level > 1 else []
            estimated = self._estimator("estimate", self._folder / f"zero.{level}", *below, *allowed)
            (self._folder / f"p.{level}").write_bytes(estimated)
            found = [e for e in rows.read_streams(io.BytesIO(estimated).read) if isinstance(e, rows.Block)]
            self._stage.doc["zero_rows"].append(sum(len(b.rows) for b in found if b.kind == "p"))
            zero += [rows.block(b.kind, b.n, b.rows) for b in found]
            level += 1
        self._stage.doc["zero_bytes"] = sum(map(len, zero))
        return zero

    def _word_weights(self) -> bytes:
        """How many n-grams end in each word, about: between its number of predecessors and how often it occurs."""
        weights: Any = np.ones(0)
        for event in rows.read_streams(io.BytesIO((self._folder / "zero.1").read_bytes()).read):
            if isinstance(event, rows.Block):
                last = int(event.rows[-1, 0])
                weights = np.concatenate([weights, np.ones(max(0, last + 1 - len(weights)))])
                weights[event.rows[:, 0]] += rows.load_counts(event.rows, 1) + rows.load_counts(event.rows, 3)
        data: bytes = weights.astype("<f8").tobytes()
        return data

    def _estimator(self, *arguments: Any) -> bytes:
        with Process([self._binary, *map(str, arguments)]) as process:
            out = process.output()
        self._stage.driver_cpu_s += process.cpu_s
        return out
