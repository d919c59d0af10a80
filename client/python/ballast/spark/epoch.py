"""One pass over the data: the deterministic data frame, the Spark job that feeds it, and the commit.

The order of rows depends on nothing but the rows' ids, the seed and the number of the epoch: h = xxhash64(id, seed, epoch), hashed into a
fixed number of partitions, sorted by (h, id). A retry, another cluster size or another application makes the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ballast.errors import BallastError, fault_in
from ballast.spark.columns import Source, quoted
from ballast.spark.feed import COUNTS_SCHEMA, FeedTask, feed_function
from ballast.spark.jobs import tagged

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_TRIES = 3
_COMMIT_TIMEOUT_S = 300.0


def row_hash(id_column: str, seed: int, epoch: int) -> "Column":
    from pyspark.sql import functions as F

    signed = seed - (1 << 64) if seed >= 1 << 63 else seed
    return F.xxhash64(F.col(quoted(id_column)), F.lit(signed).cast("long"), F.lit(epoch).cast("long"))


def partition_of(id_column: str, seed: int, epoch: int, partitions: int) -> "Column":
    """The partition that Spark's hash partitioning will put a row into."""
    from pyspark.sql import functions as F

    return F.pmod(F.hash(row_hash(id_column, seed, epoch)), F.lit(partitions))


def epoch_frame(df: "DataFrame", sources: Sequence[Source], id_column: Optional[str], seed: int, epoch: int, partitions: int) -> "DataFrame":
    """Columns c0, c1, ... in the order of `sources` and, with ids, "id" last; rows in their partitions and in order.

    The columns themselves end the sort key: rows that share an id by mistake keep one order too.
    """
    from pyspark.sql import functions as F

    columns = [F.col(quoted(s.column)).alias(f"c{i}") for i, s in enumerate(sources)]
    names = [f"c{i}" for i in range(len(sources))]
    if id_column is None:
        return df.select(*columns).repartition(partitions)
    frame = df.select(*columns, F.col(quoted(id_column)).alias("id"), row_hash(id_column, seed, epoch).alias("h"))
    return frame.repartition(partitions, "h").sortWithinPartitions("h", "id", *names).select(*names, "id")


def run_epoch(connection: Any, frame: "DataFrame", task: FeedTask, partitions: int, tag: str) -> tuple[Any, list[Any]]:
    """Begins, feeds and commits one epoch. Returns its EpochReport and the counts of every partition.

    Batches that the commit misses are fed again: feeds skip what is trained. After a rollback some must be missing; without one, a few tries
    are enough to see that something is wrong.
    """
    from ballast.runs import get_run
    from ballast.v1 import control_pb2

    epoch = control_pb2.Epoch(run=task.run, epoch=task.epoch, partitions=partitions, batch_rows=task.batch_rows, schema=task.schema)
    report = connection.call("BeginEpoch", epoch, patience_s=task.patience_s)
    if report.committed:
        return report, []
    tries, generation = 0, 0
    while tries < _TRIES:
        counts = _feed(frame, task, tag)
        report = connection.call("CommitEpoch", _counts(task, partitions, counts), timeout_s=_COMMIT_TIMEOUT_S, patience_s=task.patience_s)
        if report.committed:
            return report, counts
        before, generation = generation, get_run(connection, task.run, patience_s=task.patience_s, full=False).generation
        tries = tries + 1 if generation == before else 1
    missing = ", ".join(f"partition {m.partition}: seq {', '.join(map(str, m.seqs[:5]))}" for m in report.missing[:5])
    raise BallastError("EPOCH_INCOMPLETE", f"epoch {task.epoch} of run {task.run} was fed {_TRIES} times and still lacks batches: {missing}", {"run": task.run})


def _feed(frame: "DataFrame", task: FeedTask, tag: str) -> list[Any]:
    """Runs the Spark job. The collected rows are those of the attempts that won."""
    try:
        with tagged(frame.sparkSession, tag):
            counts: list[Any] = frame.mapInArrow(feed_function(task), COUNTS_SCHEMA).collect()
            return counts
    except Exception as e:
        raise _explained(e, task) from e


def _explained(error: Exception, task: FeedTask) -> Exception:
    text = str(error)
    found = fault_in(text)
    if found is not None:
        return found
    if "No module named 'ballast" in text:
        return BallastError("CLIENT_MISSING", "the executors' Python has no package ballast: install it there, or send it along (spark-submit --py-files)")
    if "cancelled" in text.lower() or "canceled" in text.lower():
        return BallastError("CANCELLED", f"the Spark job was cancelled; run {task.run} stays as it is, the same run_id resumes it", {"run": task.run})
    return error


def _counts(task: FeedTask, partitions: int, rows: Sequence[Any]) -> Any:
    from ballast.v1 import control_pb2

    by_partition = {r["partition"]: r for r in rows}
    counts = control_pb2.EpochCounts(run=task.run, epoch=task.epoch)
    for p in range(partitions):  # Spark may leave out empty partitions
        row = by_partition.get(p)
        counts.partitions.add(partition=p, batches=row["batches"] if row else 0, rows=row["rows"] if row else 0)
    return counts
