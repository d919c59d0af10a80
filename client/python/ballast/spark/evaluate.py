"""How good a run is on held-out rows: accuracy, or the mean squared error, computed where the rows are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from ballast.channel import Connection
from ballast.errors import BallastError, TaskFault, fault_in
from ballast.model import Column, ModelDescription
from ballast.spark.columns import Features, source_of
from ballast.spark.score import score_task
from ballast.spark.scoring import Scorer, ScoreTask

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa
    from pyspark.sql import DataFrame

_BATCH_ROWS = 1024


@dataclass(frozen=True)
class Evaluation:
    rows: int
    accuracy: Optional[float]
    loss: Optional[float]


def evaluate(
    connection: Connection,
    df: "DataFrame",
    run: str,
    version: int,
    description: ModelDescription,
    features: Features,
    label: str,
    patience_s: float,
) -> Evaluation:
    """Raises BallastError(EVAL_UNSUPPORTED) for losses that only the model itself knows."""
    if description.label is None or description.loss.startswith("method:"):
        raise BallastError("EVAL_UNSUPPORTED", f'eval_df needs a label and a built-in loss, the model has loss "{description.loss}"; use score()')
    target = source_of(df.schema, description.label, label)
    output = description.outputs[0]
    task = score_task(connection, df, run, version, description, features, (output.name,), _BATCH_ROWS, patience_s)
    label_at = df.columns.index(label)
    try:
        rows = df.mapInArrow(_evaluate_function(task, description.loss, output, target, label_at), "rows long, total double").collect()
    except Exception as e:
        raise fault_in(str(e)) or e from e
    count, total = sum(r["rows"] for r in rows), sum(r["total"] for r in rows)
    value = total / count if count else None
    return Evaluation(count, None, value) if description.loss == "mse" else Evaluation(count, value, None)


def measure(loss: str, predictions: "npt.NDArray[Any]", labels: "npt.NDArray[Any]") -> float:
    """Sum over rows: right (1) or wrong (0), or the squared error averaged over a row's elements. NaN predictions are wrong."""
    import numpy as np

    rows = len(predictions)
    if loss == "cross_entropy":
        right = (predictions.argmax(axis=1) == labels) & ~np.isnan(predictions).any(axis=1)
        return float(right.reshape(rows, -1).mean(axis=1).sum())
    labels = labels.reshape(predictions.shape)
    if loss == "bce_with_logits":
        return float(((predictions > 0) == (labels > 0.5)).reshape(rows, -1).mean(axis=1).sum())
    return float(((predictions.astype("f8") - labels) ** 2).reshape(rows, -1).mean(axis=1).sum())


def _evaluate_function(
    task: ScoreTask, loss: str, output: Column, target: Any, label_at: int
) -> "Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]":
    def run(incoming: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa
        from pyspark import TaskContext

        from ballast.spark.convert import RowFault, to_dense

        context: Any = TaskContext.get()
        scorer = Scorer(task, context.partitionId())
        count, total = 0, 0.0
        try:
            for record_batch in incoming:
                for start in range(0, record_batch.num_rows, task.batch_rows):
                    rows = record_batch.slice(start, task.batch_rows)
                    labels = to_dense(rows.column(label_at), target.target, target.nested)
                    total += measure(loss, scorer.score(rows)[output.name], labels)
                    count += rows.num_rows
        except RowFault as fault:
            raise TaskFault(BallastError(fault.reason, f'column "{target.column}" holds {fault.found}, expected {target.target}')) from None
        except BallastError as e:
            raise TaskFault(e) from None
        finally:
            scorer.close()
        yield pa.RecordBatch.from_arrays([pa.array([count], pa.int64()), pa.array([total], pa.float64())], names=["rows", "total"])

    return run


