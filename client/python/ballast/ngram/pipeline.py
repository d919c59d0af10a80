"""One model from its source to its outputs: the stages in their order. docs/NGRAM.md, "Stages"."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np

from ballast.errors import BallastError
from ballast.ngram import blocks, counting, joining, keys, sharding, smoothing, words
from ballast.ngram import plan as plans
from ballast.ngram import tables as model_tables
from ballast.ngram.barrier import Barrier
from ballast.ngram.config import Model
from ballast.ngram.engine import BLOB_ROWS, TEXT_ROWS
from ballast.ngram.sources import Source, file_ranks
from ballast.ngram.stages import Runner, Stage
from ballast.ngram.work import digest

_BUCKET_BYTES = 16 << 20  # Of text: its tuples take four times as much, in one task's estimator.
_SHARD_BYTES = 128 << 20  # In memory, when the configuration does not say how many shards there are.


class Pipeline:
    """Call `vocabulary`, then the others in their order. Each takes what the ones before left in the work folder."""

    def __init__(self, runner: Runner, model: Model) -> None:
        self.runner = runner
        self._engine = runner.engine
        self.work = runner.work
        self.model = model
        self._shipped = self._engine.shipped
        self._source: Source = self._engine.open_source(model)
        self._parts = model.partitions or 2 * self._engine.cores
        self._marks = b""  # Which words n-grams may have; empty: all.
        self.plan: Optional[plans.Plan] = None
        self.zero_rows: list[int] = []
        self.zero_bytes = 0
        self.discounts: list[list[float]] = []

    # ---- stages ----------------------------------------------------------------------------------------------------------------------

    def vocabulary(self) -> None:
        """Distinct words, in the order of their first appearance where the source has an order."""
        self._words = self.runner.run(self.model.name, "vocabulary", [self._source.identity, self.model.skip_symbols], self._find_words)
        if self._words.doc["sentences"] == 0:
            raise BallastError("SOURCE_EMPTY", f"[model.{self.model.name}]: the source is empty: not one sentence")
        if self.model.limit_vocab:
            self._marks = self._mark_words(self.model.limit_vocab)

    def words(self) -> list[bytes]:
        return self.work.read(self._words.folder, "vocabulary").split(b"\n")[len(words.RESERVED) : -1]

    def count(self) -> None:
        inputs = [self._words.folder, self.model.order]
        self._tuples = self.runner.run(self.model.name, "count", inputs, self._count)

    def make_plan(self) -> None:
        inputs = [self._tuples.folder, self._shards(), self.model.tau, self.model.levels]
        stage = self.runner.run(self.model.name, "plan", inputs, self._make_plan)
        self.plan = plans.Plan.from_json(json.loads(self.work.read(stage.folder, "plan.json")))
        self._plan = stage

    def adjust(self) -> None:
        cutoffs = list(self.model.cutoffs) if self.model.has_cutoffs else []
        inputs = [self._plan.folder, cutoffs, digest(self._marks.decode())]
        self.adjusted = self.runner.run(self.model.name, "adjust", inputs, self._adjust)

    def barrier(self, vocab_pad: int) -> None:
        model = self.model
        flags = ["--vocab-pad", str(vocab_pad)]
        flags += ["--prune", ",".join(map(str, model.cutoffs))] if model.has_cutoffs else []
        flags += ["--discount-fallback", ",".join(map(repr, model.discount_fallback))] if model.discount_fallback else []
        flags += ["--compat", model.compat] if model.compat else []
        flags += [] if model.interpolate_unigrams else ["--no-interpolate-unigrams"]
        self._barrier = self.runner.run(model.name, "barrier", [self.adjusted.folder, flags], lambda stage: self._sum(stage, flags))
        self.zero_rows = self._barrier.doc["zero_rows"]
        self.zero_bytes = int(self._barrier.doc["zero_bytes"])
        self.discounts = self._barrier.doc["discounts"]

    def estimate(self, arpa: bool, tables: bool) -> None:
        inputs = [self._barrier.folder, arpa, tables]
        self._estimated = self.runner.run(self.model.name, "estimate", inputs, lambda stage: self._estimate(stage, arpa, tables))

    def write_arpa(self, path: str) -> list[int]:
        """Returns the numbers of n-grams."""
        counts: list[int] = []

        def write(stage: Stage) -> None:
            counts.extend(joining.write_arpa(path, self.model.order, self._estimated.meters, self._pieces()))

        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.runner.always(self.model.name, "arpa", write)
        return counts

    def tuples(self) -> Iterator[tuple[int, Any]]:
        """(rows, framed rows) of all tuples, in the order of buckets."""
        for batch in self.work.parquet(self._tuples.folder, "blocks", ["kind", "rows", "data"]):
            for kind, count, data in zip(batch["kind"], batch["rows"], batch["data"]):
                if kind == "t":
                    yield count, data

    def write_tables(self, uri: str) -> None:
        """Tables `ngrams` and `vocabulary`."""

        def write(stage: Stage) -> None:
            frame = self._read(self._estimated, "m").mapInArrow(joining.tabulate, joining.TABLE)
            self._engine.write(frame, _spark_uri(uri) + "/ngrams")
            model_tables.write_vocabulary(uri, [*words.RESERVED, *self.words()])

        self.runner.always(self.model.name, "tables", write)

    # ---- for the report --------------------------------------------------------------------------------------------------------------

    def ngrams(self) -> list[int]:
        """Of each order, in the model as it was estimated; empty when no ARPA text was made."""
        found = [m["ngrams"] for m in self._estimated.meters if m["task"] == "join" and "ngrams" in m]
        return [sum(int(m.get(str(n), 0)) for m in found) for n in range(1, self.model.order + 1)] if found else []

    def tuple_count(self) -> int:
        return int(self._tuples.doc["tuples"])

    # ---- vocabulary ------------------------------------------------------------------------------------------------------------------

    def _find_words(self, stage: Stage) -> None:
        table = self._engine.first_words(self._source.lines.mapInArrow(words.find_words(self.model.skip_symbols), words.WORDS))
        known = table.column("word").is_valid()
        meters = table.filter(table.column("word").is_null())
        stage.add_meters(meters.column("extra").to_pylist())
        stage.doc["sentences"] = sum(meters.column("sentences").to_pylist())
        table = table.filter(known)
        found_words = table.column("word").to_pylist()
        if self._source.ordered and found_words:
            places = list(zip(*(table.column(name).to_pylist() for name in ("entry", "file", "start", "place"))))
            ranks = file_ranks({(entry, file) for entry, file, _, _ in places}, self._source.files)
            order = sorted(((ranks[e, f], s, p), word) for (e, f, s, p), word in zip(places, found_words))
            found_words = [word for _, word in order]
        else:
            found_words.sort()
        stage.doc["words"] = len(found_words)
        self.work.write(stage.folder, "vocabulary", words.vocabulary_file(found_words))

    def _mark_words(self, path: str) -> bytes:
        where = f"[model.{self.model.name}] limit_vocab: {path}"
        try:
            listed = words.split(pathlib.Path(path).read_bytes())
        except OSError as e:
            raise BallastError("SOURCE_NOT_FOUND", f"{where} cannot be read: {e.strerror}") from e
        known = self.words()
        if listed.isdisjoint(known):
            raise BallastError("BAD_CONFIG", f"{where} holds no word of the source, so no n-gram would be left")
        return words.marks(listed, known)

    def _ship_marks(self) -> str:
        return self._engine.ship(self._marks, "allowed") if self._marks else ""

    # ---- counting --------------------------------------------------------------------------------------------------------------------

    def _count(self, stage: Stage) -> None:
        vocabulary = self._engine.ship(self.work.read(self._words.folder, "vocabulary"), "vocabulary")
        model = self.model
        buckets = max(self._parts, self._source.bytes // _BUCKET_BYTES + 1)
        count = counting.count(model.order, buckets, self._shipped, vocabulary, model.memory, model.skip_symbols)
        counted = self._source.lines.mapInArrow(count, blocks.SCHEMA).repartition(buckets, "part")
        self._write(stage, counted.mapInArrow(counting.combine(model.order, self._shipped), blocks.SCHEMA), TEXT_ROWS)
        stage.doc["tuples"] = sum(m.get("tuples", 0) for m in stage.meters)
        stage.doc["buckets"] = buckets

    # ---- the plan --------------------------------------------------------------------------------------------------------------------

    def _shards(self) -> int:
        if self.model.shards:
            return self.model.shards
        in_memory = int(self._tuples.doc["tuples"]) * (4 * self.model.order + 90)
        return max(self._parts, in_memory // _SHARD_BYTES + 1)

    def _make_plan(self, stage: Stage) -> None:
        def loads(plan: plans.Plan) -> Any:
            table = self._engine.sum_loads(self._read(self._tuples, "t").mapInArrow(sharding.loads(plan), sharding.LOADS))
            stage.add_meters(table.column("extra").to_pylist())
            shard = np.asarray(table.column("shard").to_pylist(), dtype=np.int64)
            load = np.asarray(table.column("load").to_pylist(), dtype=np.int64)
            total = np.zeros(plan.levels[-1].shards, dtype=np.int64)
            total[shard[shard >= 0]] = load[shard >= 0]
            return total

        model = self.model
        made = plans.make(model.order, self._shards(), model.tau, model.levels, loads)
        stage.doc["levels"] = len(made.levels)
        self.work.write(stage.folder, "plan.json", json.dumps(made.to_json()).encode())

    def _shard_frame(self, kept: bool) -> Any:
        """All shards' rows, each shard within one partition, in the order of shards."""
        assert self.plan is not None
        parts = self._packed()
        if kept:
            frame = self._read(self.adjusted, "kept")
        else:
            frame = self._read(self._tuples, "t").mapInArrow(sharding.split(self.plan, parts), blocks.SCHEMA)
        return frame.repartition(self._parts, "part").sortWithinPartitions("level", "shard")

    def _packed(self) -> list[list[int]]:
        """[level - 1][shard]: where df.repartition sends it."""
        assert self.plan is not None
        placement = keys.placement(self._parts)
        shards = self.plan.shards()
        parts = [[placement[0]] * level.shards for level in self.plan.levels]
        for (level, shard, _), part in zip(shards, plans.pack([load for _, _, load in shards], self._parts)):
            parts[level - 1][shard] = placement[part]
        return parts

    # ---- adjusted counts, the barrier ------------------------------------------------------------------------------------------------

    def _adjust(self, stage: Stage) -> None:
        cutoffs = list(self.model.cutoffs) if self.model.has_cutoffs else []
        adjust = smoothing.adjust(self.model.order, self._shipped, cutoffs, self._ship_marks())
        self._write(stage, self._shard_frame(kept=False).mapInArrow(adjust, blocks.SCHEMA))
        stage.doc["kept"] = sum(m.get("kept", 0) for m in stage.meters)
        stage.doc["wildcards"] = sum(m.get("wildcards", 0) for m in stage.meters)

    def _sum(self, stage: Stage, flags: list[str]) -> None:
        """The one place that waits for all shards."""
        found = Barrier(self._engine, stage, self.model, flags, self._marks).run(self._sums())
        for name, data in found.items():
            self.work.write(stage.folder, name, data)

    def _sums(self) -> Iterator[tuple[int, bytes]]:
        """(level, framed rows) of what the shards add to the sums of all."""
        for batch in self.work.parquet(self.adjusted.folder, "blocks", ["level", "kind", "data"]):
            for level, kind, data in zip(batch["level"], batch["kind"], batch["data"]):
                if kind == "sum":
                    yield level, bytes(data)

    # ---- probabilities ---------------------------------------------------------------------------------------------------------------

    def _estimate(self, stage: Stage, arpa: bool, tables: bool) -> None:
        engine, order = self._engine, self.model.order
        head, zero = (engine.ship(self.work.read(self._barrier.folder, name), name) for name in ("head", "zero"))
        known = smoothing.Known(head, zero, self._ship_marks())
        vocabulary = engine.ship(self.work.read(self._words.folder, "vocabulary"), "vocabulary")
        weights = np.frombuffer(self.work.read(self._barrier.folder, "weights"), dtype="<f8")
        ranges = joining.range_starts(weights, self._parts)
        placement = keys.placement(self._parts)
        join = joining.join(order, self._shipped, vocabulary, zero, ranges, arpa, tables)
        shards = self._shard_frame(kept=self.model.prunes)
        if self.model.carrier == "pipe":
            estimated = engine.estimate_through_pipe(shards, order, known, ranges, list(placement))
        else:
            estimate = smoothing.estimate(order, self._shipped, known, ranges, list(placement))
            estimated = shards.mapInArrow(estimate, blocks.SCHEMA)
        # A range has a task even when no shard has a row of it: there are the rows of the 0-shards.
        runs = estimated.unionByName(engine.markers(self._parts)).repartition(self._parts, "part")
        self._write(stage, runs.mapInArrow(join, blocks.SCHEMA))

    def _pieces(self) -> Iterator[tuple[int, int, int, Any]]:
        for batch in self.work.parquet(self._estimated.folder, "blocks", ["level", "shard", "kind", "rows", "data"]):
            for level, shard, kind, at, data in zip(*(batch[c] for c in ("level", "shard", "kind", "rows", "data"))):
                if kind == "arpa":
                    yield level, shard, at, data

    # ---- tables between the stages ---------------------------------------------------------------------------------------------------

    def _uri(self, stage: Stage, name: str) -> str:
        return self.work.uri(stage.folder, name)

    def _write(self, stage: Stage, frame: Any, batch_rows: int = BLOB_ROWS) -> None:
        self._engine.write(frame, self._uri(stage, "blocks"), batch_rows)
        for batch in self.work.parquet(stage.folder, "blocks", ["extra", "kind"]):
            stage.add_meters(extra for extra, kind in zip(batch["extra"], batch["kind"]) if kind == "meter")

    def _read(self, stage: Stage, kind: str) -> Any:
        return self._engine.read(self._uri(stage, "blocks"), kind)


def _spark_uri(path: str) -> str:
    return path if "://" in path else "file://" + path
