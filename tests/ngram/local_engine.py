"""The engine of ballast.ngram without Spark: the same stages and tasks over tables in memory, in this process. Splits, partitions and their order
are drawn from a seed: nothing may depend on them."""

from __future__ import annotations

import contextlib
import pathlib
import random
import sys
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
from ballast.ngram import blocks, keys, words
from ballast.ngram.sources import Source

_TYPES = {"int": pa.int32(), "long": pa.int64(), "binary": pa.binary(), "string": pa.string(), "float": pa.float32(), "array<int>": pa.list_(pa.int32())}


def _schema(text: str) -> pa.Schema:
    return pa.schema([(name, _TYPES[kind]) for name, kind in (field.split() for field in text.split(", "))])


class Frame:
    def __init__(self, draw: random.Random, partitions: list[pa.Table]):
        self.draw = draw
        self.partitions = partitions

    def mapInArrow(self, function, schema: str) -> Frame:  # noqa: N802 - Spark's name
        schema = _schema(schema)

        def run(table: pa.Table) -> pa.Table:
            out = list(function(iter(table.to_batches(max_chunksize=self.draw.choice((1, 7, 1000))))))
            return pa.Table.from_batches(out, schema) if out else schema.empty_table()

        return Frame(self.draw, [run(table) for table in self.partitions])

    def repartition(self, number: int, column: str) -> Frame:
        table = pa.concat_tables(self.partitions)
        where = [keys.murmur3(value) % number for value in table.column(column).to_pylist()]
        rows = list(range(len(where)))
        self.draw.shuffle(rows)
        return Frame(self.draw, [table.take(pa.array([r for r in rows if where[r] == p], pa.int64())) for p in range(number)])

    def sortWithinPartitions(self, *columns: str) -> Frame:  # noqa: N802 - Spark's name
        return Frame(self.draw, [table.sort_by([(c, "ascending") for c in columns]) for table in self.partitions])

    def unionByName(self, other: Frame) -> Frame:  # noqa: N802 - Spark's name
        return Frame(self.draw, self.partitions + other.partitions)


class LocalEngine:
    connect = False

    def __init__(self, binary: pathlib.Path, seed: int = 1, cores: int = 2):
        self.draw = random.Random(seed)
        self.binary = binary
        self.cores = cores
        self.out = sys.stderr
        self._temporary = tempfile.TemporaryDirectory(prefix="local-engine-")  # Ends with the engine.
        self._folder = pathlib.Path(self._temporary.name)
        folder = self._folder

        class Shipped(blocks.Shipped):
            def path(self, name: str, what: str = "") -> str:
                return str(folder / name)

        self.shipped = Shipped(self.ship(binary.read_bytes(), "ballast-ngram"))

    def ship(self, data: bytes, name: str) -> str:
        path = self._folder / f"{name}-{len(list(self._folder.iterdir()))}"
        path.write_bytes(data)
        path.chmod(0o755)
        return path.name

    def file(self, name: str) -> pathlib.Path:
        return self._folder / name

    def open_source(self, model) -> Source:
        """Each file in a few splits, which come in any order."""
        schema = _schema(words.LINES)
        partitions = [schema.empty_table()]
        for entry, path in enumerate(model.text):
            text = pathlib.Path(path).read_bytes()
            lines = text.removesuffix(b"\n").split(b"\n") if text else []
            cuts = sorted(self.draw.choices(range(len(lines) + 1), k=2))
            for begin, stop in zip([0, *cuts], [*cuts, len(lines)]):
                columns = [lines[begin:stop], *([value] * (stop - begin) for value in (entry, 17 + entry, begin))]
                partitions.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema)], schema=schema))
        self.draw.shuffle(partitions)
        size = sum(pathlib.Path(path).stat().st_size for path in model.text)
        identity = [[path, pathlib.Path(path).read_bytes().hex()] for path in model.text]
        return Source(Frame(self.draw, partitions), identity, size, True, list(model.text))

    def first_words(self, frame: Frame) -> pa.Table:
        rows = sorted(pa.concat_tables(frame.partitions).to_pylist(), key=lambda row: (row["entry"], row["file"], row["start"], row["place"]))
        seen: set[bytes] = set()
        kept = []
        for row in rows:
            if row["word"] is None or row["word"] not in seen:
                kept.append(row)
            seen.add(row["word"])
        self.draw.shuffle(kept)
        return pa.Table.from_pylist(kept, frame.partitions[0].schema)

    def sum_loads(self, frame: Frame) -> pa.Table:
        return pa.concat_tables(frame.partitions).group_by(["shard", "extra"]).aggregate([("load", "sum")]).rename_columns(["shard", "extra", "load"])

    def markers(self, parts: int) -> Frame:
        rows = [blocks.Row(part, 0, r, "range", 0, b"") for r, part in enumerate(keys.placement(parts))]
        return Frame(self.draw, [pa.Table.from_batches(list(blocks.write(rows)), blocks.ARROW)])

    def read(self, uri: str, kind: str) -> Frame:
        tables = [pq.read_table(path) for path in sorted(pathlib.Path(uri.removeprefix("file://")).glob("*.parquet"))]
        rows = pa.concat_tables(tables)
        rows = rows.filter(pa.compute.equal(rows.column("kind"), kind))
        cut = self.draw.randrange(len(rows) + 1)
        return Frame(self.draw, [rows.slice(0, cut), rows.slice(cut)])

    def write(self, frame: Frame, uri: str, batch_rows: int = 0) -> None:
        folder = pathlib.Path(uri.removeprefix("file://"))
        folder.mkdir(parents=True, exist_ok=True)
        for number, table in enumerate(frame.partitions):
            pq.write_table(table, folder / f"part-{number:05}.parquet")

    def costs(self) -> dict:
        return {}

    @contextlib.contextmanager
    def progress(self, title: str):
        yield

    def say(self, text: str) -> None:
        pass
