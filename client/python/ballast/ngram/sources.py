"""Where sentences come from: text files, Parquet or a table, as a data frame of words.LINES, and what tells one version of a source from another."""

from __future__ import annotations

import os
import re
import time
import urllib.parse
from dataclasses import dataclass
from typing import Any

import pyarrow.fs as pafs

from ballast.errors import BallastError
from ballast.ngram.config import Model

_HIDDEN = ("_", ".")


@dataclass(frozen=True)
class Source:
    lines: Any  # DataFrame of words.LINES
    identity: list[Any]  # Changes when the source does.
    bytes: int  # 0: unknown
    ordered: bool  # Ids follow the first appearance of words.
    files: list[str]


def open_source(spark: Any, model: Model) -> Source:
    """Raises BallastError(SOURCE_NOT_FOUND, COLUMN_MISSING, TYPE_MISMATCH) with the model's name."""
    if model.source == "text":
        frames = [_text(spark, model, path, entry) for entry, path in enumerate(model.text)]
        lines, inputs = frames[0], [frame.inputFiles() for frame in frames]
        for frame in frames[1:]:
            lines = lines.unionByName(frame)
    else:
        lines = _table(spark, model)
        inputs = [lines.inputFiles()]
    files = [file for some in inputs for file in some]
    if model.deduplicate:
        lines = lines.select("value").distinct().select("value", *_nowhere())
    versions = [_version(file) for file in files] or [_version("")]
    identity = [model.source, model.deduplicate, model.column if model.source != "text" else "", model.table]
    return Source(lines, identity + sorted(versions), sum(size for _, size, _ in versions), model.source == "text" and not model.deduplicate, files)


def _text(spark: Any, model: Model, path: str, entry: int) -> Any:
    from pyspark.sql import functions as F

    if not _is_address(path) and not _readable(path):
        raise BallastError("SOURCE_NOT_FOUND", f"[model.{model.name}] text: there is nothing to read at {path}")
    try:
        frame = spark.read.option("lineSep", "\n").text(path)
        return frame.select(
            F.col("value").cast("binary").alias("value"),
            F.lit(entry).alias("entry"),
            F.xxhash64(F.col("_metadata.file_path")).alias("file"),
            F.col("_metadata.file_block_start").alias("start"),
        )
    except Exception as e:
        raise BallastError("SOURCE_NOT_FOUND", f"[model.{model.name}] text {path} cannot be read: {_first_line(e)}") from e


def _table(spark: Any, model: Model) -> Any:
    from pyspark.sql import functions as F

    name = model.parquet or model.table
    try:
        frame = spark.read.parquet(model.parquet) if model.parquet else spark.table(model.table)
        fields = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
    except Exception as e:
        raise BallastError("SOURCE_NOT_FOUND", f"[model.{model.name}] {model.source} {name} cannot be read: {_first_line(e)}") from e
    if model.column not in fields:
        raise BallastError("COLUMN_MISSING", f'[model.{model.name}]: {name} has no column "{model.column}"; it has {", ".join(fields)}')
    if fields[model.column] not in ("string", "binary"):
        found = f"[model.{model.name}]: column {model.column} of {name} is {fields[model.column]}"
        raise BallastError("TYPE_MISMATCH", f"{found}; want one sentence a row, a string")
    column = F.col("`" + model.column.replace("`", "``") + "`").cast("binary").alias("value")
    return frame.select(column, *_nowhere())


def _nowhere() -> list[Any]:
    """The columns of words.LINES for sentences without an order."""
    from pyspark.sql import functions as F

    return [F.lit(0).cast(kind).alias(name) for name, kind in (("entry", "int"), ("file", "long"), ("start", "long"))]


def file_ranks(found: set[tuple[int, int]], files: list[str]) -> dict[tuple[int, int], int]:
    """{(entry, hash of the file's path): place in the order of entries and paths}."""
    import xxhash

    paths: dict[int, str] = {}
    for file in files if len(found) > 1 else []:
        for spelling in {file, re.sub(r"^file:/(?!/)", "file:///", file)}:
            value = xxhash.xxh64_intdigest(spelling.encode(), 42)
            paths[value - (1 << 64) if value >> 63 else value] = file
    order = sorted(found, key=lambda where: (where[0], paths.get(where[1], ""), where[1]))
    return {where: place for place, where in enumerate(order)}


def _version(file: str) -> tuple[str, int, int]:
    """Path, bytes and time of change. What cannot be asked is another version each time: then nothing is taken from an earlier run."""
    try:
        if file.startswith("file:"):
            stat = os.stat(urllib.parse.unquote(re.sub(r"^file:/+", "/", file)))
            return file, stat.st_size, stat.st_mtime_ns
        fs, path = pafs.FileSystem.from_uri(file)
        info = fs.get_file_info(path)
        return file, int(info.size), int(info.mtime_ns)
    except (OSError, ValueError, TypeError):
        return file, 0, time.time_ns()


def _readable(path: str) -> bool:
    import glob

    return any(os.access(found, os.R_OK) for found in glob.glob(path)) or os.access(path, os.R_OK)


def _is_address(path: str) -> bool:
    return "://" in path


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
