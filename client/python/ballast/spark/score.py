"""`Cluster.score`: the data frame with the predictions of a run as new columns. Lazy, as every transformation of Spark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable

from ballast.channel import Connection
from ballast.dtypes import is_float
from ballast.errors import BallastError, TaskFault
from ballast.model import Column, ModelDescription, parse_description
from ballast.runs import get_run, parse_run
from ballast.spark.columns import Features, match_inputs, source_of
from ballast.spark.scoring import Scorer, ScoreTask

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa
    from pyspark.sql import DataFrame

_SPARK_INTEGERS = {"bool": "BooleanType", "uint8": "ShortType", "int8": "ByteType", "int16": "ShortType", "int32": "IntegerType", "int64": "LongType"}


def score(
    connection: Connection, df: "DataFrame", run: str, feed: Features, fetch: Mapping[str, str], batch_rows: int, patience_s: float
) -> "DataFrame":
    name, version = resolve_version(connection, run)
    description = parse_description(get_run(connection, name).spec.model_json)
    task = score_task(connection, df, name, version, description, feed, tuple(fetch), batch_rows, patience_s)
    columns = {c.name: c for c in description.outputs}
    taken = list(df.columns)
    for new in fetch.values():
        if new in taken:
            raise BallastError("COLUMN_EXISTS", f'fetch=: there is a column "{new}" already')
        taken.append(new)
    schema = _with_outputs(df.schema, [(new, columns[output]) for output, new in fetch.items()])
    return df.mapInArrow(_score_function(task, tuple(columns[o] for o in fetch), tuple(fetch.values())), schema)


def resolve_version(connection: Connection, text: str) -> tuple[str, int]:
    """Pins "newest" now, so that all rows are scored by one version."""
    name, version = parse_run(text)
    if version == "live":
        raise BallastError("BAD_SPEC", f'"{text}": workers serve checkpoints; write "{name}" or "{name}@version"')
    if version:
        return name, int(version)
    run = get_run(connection, name, patience_s=30.0, full=False)
    if not run.manifest_version:
        raise BallastError("NO_MANIFEST", f'run "{name}" has no checkpoint yet to score with', {"run": name})
    return name, int(run.manifest_version)


def score_task(
    connection: Connection,
    df: "DataFrame",
    run: str,
    version: int,
    description: ModelDescription,
    feed: Features,
    outputs: tuple[str, ...],
    batch_rows: int,
    patience_s: float,
) -> ScoreTask:
    """Checks columns and outputs against the model."""
    known = [c.name for c in description.outputs]
    for output in outputs:
        if output not in known:
            raise BallastError("COLUMN_MISSING", f'fetch=: the model has no output "{output}"; its outputs are {", ".join(known)}')
    given = match_inputs(description.inputs, feed, "feed")
    inputs = tuple((source_of(df.schema, c, given[c.name]), df.columns.index(given[c.name])) for c in description.inputs)
    return ScoreTask(connection.address, run, str(version), inputs, outputs, batch_rows, patience_s)


def _score_function(task: ScoreTask, columns: tuple[Column, ...], names: tuple[str, ...]) -> "Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]":
    def run(incoming: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        from pyspark import TaskContext

        context: Any = TaskContext.get()
        scorer = Scorer(task, context.partitionId())
        try:
            for record_batch in incoming:
                for start in range(0, record_batch.num_rows, task.batch_rows):
                    rows = record_batch.slice(start, task.batch_rows)
                    outputs = scorer.score(rows)
                    arrays = rows.columns + [_as_arrow(outputs[c.name], c) for c in columns]
                    yield pa.RecordBatch.from_arrays(arrays, names=[*rows.schema.names, *names])
        except BallastError as e:
            raise TaskFault(e) from None
        finally:
            scorer.close()

    return run


def _with_outputs(schema: Any, outputs: list[tuple[str, Column]]) -> Any:
    from pyspark.sql import types as T

    fields = list(schema.fields)
    for name, column in outputs:
        kind: Any = T.DoubleType() if column.dtype == "float64" else T.FloatType() if is_float(column.dtype) else getattr(T, _SPARK_INTEGERS[column.dtype])()
        for _ in column.shape:
            kind = T.ArrayType(kind)
        fields.append(T.StructField(name, kind))
    return T.StructType(fields)


def _as_arrow(values: "npt.NDArray[Any]", column: Column) -> "pa.Array":
    """[rows, shape...] as nested lists. Element types are those of _with_outputs: Spark does not cast."""
    import numpy as np
    import pyarrow as pa

    if column.dtype in ("float16", "bfloat16"):
        values = values.astype("<f4")
    elif column.dtype == "uint8":
        values = values.astype("<i2")
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        length = values.shape[axis]
        offsets = np.arange(0, len(array) + 1, length, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array
