"""One pass over the data before a run starts: how many rows there are, and whether each fits the model.

A wrong row is found here, before anything was trained. (The tasks check again: the data may change between two passes.) DataFrame API
only: it runs in the JVM, without Python workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ballast.errors import BallastError
from ballast.spark.columns import Source, quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def count_rows(df: "DataFrame", sources: Sequence[Source], id_column: Optional[str], partition: Optional["Column"]) -> int:
    """Rows of `df`. `partition`: an expression for the partition that a row will be in. Raises BallastError for the first row that does not fit."""
    from pyspark.sql import functions as F

    misfits = [(s.column, str(s.target), _misfit(df, s)) for s in sources]
    if id_column is not None:
        misfits.append((id_column, "a unique and stable id", F.col(quoted(id_column)).isNull()))
    sums = [F.sum(F.when(bad, 1).otherwise(0)).alias(f"m{i}") for i, (_, _, bad) in enumerate(misfits)]
    row = df.agg(F.count(F.lit(1)).alias("rows"), *sums).collect()[0]
    for i, (column, expected, bad) in enumerate(misfits):
        if row[f"m{i}"]:
            raise _error(df, column, expected, bad, int(row[f"m{i}"]), id_column, partition)
    return int(row["rows"])


def _misfit(df: "DataFrame", source: Source) -> "Column":
    """True for rows whose value has a null or a wrong length. Deeper levels of nested arrays are left to the tasks."""
    from pyspark.sql import functions as F

    column = F.col(quoted(source.column))
    bad = column.isNull()
    if not source.target.shape:
        return bad
    length = source.target.shape[0] if source.nested else source.target.elements
    bad = bad | (F.size(column) != F.lit(length))
    field: Any = df.schema[source.column].dataType
    return bad | F.exists(column, lambda x: x.isNull()) if field.containsNull else bad


def _error(
    df: "DataFrame", column: str, expected: str, bad: "Column", count: int, id_column: Optional[str], partition: Optional["Column"]
) -> BallastError:
    from pyspark.sql import functions as F

    shown = [F.col(quoted(column)).alias("value")]
    if id_column is not None and partition is not None:
        shown += [F.col(quoted(id_column)).cast("string").alias("id"), partition.alias("partition")]
    row = df.filter(bad).select(*shown).limit(1).collect()[0]
    value = row["value"]
    found = "null" if value is None else f"an array of {len(value)} elements{' with null inside' if None in value else ''}" if isinstance(value, list) else repr(value)
    facts = {"column": column, "expected": expected, "found": found, "rows": str(count)}
    where = ""
    if id_column is not None and partition is not None:
        facts.update(partition=str(row["partition"]), row_id=str(row["id"]))
        where = f"partition {row['partition']}, row id {row['id']} is one of them, " if count > 1 else f"partition {row['partition']}, row id {row['id']}, "
    reason = "NULL_VALUE" if "null" in found else "SHAPE_MISMATCH"
    return BallastError(
        reason, f'column "{column}" holds {found}, the model expects {expected}; {where}{count} row{"s" if count > 1 else ""} of this kind; nothing was trained', facts
    )
