"""Rows in, predictions out, at the workers: what the tasks of `score` and of an evaluation do.

Inference is idempotent, so retries are simple: a request that fails goes to the next worker. Imports of gRPC stay inside functions.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from ballast.errors import BallastError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from ballast.spark.columns import Source


@dataclass(frozen=True)
class ScoreTask:
    """All that a task must know; pickled into it."""

    address: str  # of server 0
    run: str
    version: str  # of a checkpoint
    inputs: "tuple[tuple[Source, int], ...]"  # and the index of the column in the record batches
    outputs: tuple[str, ...]
    batch_rows: int
    patience_s: float


class Scorer:
    """Lives in one task, for one partition. Close it."""

    def __init__(self, task: ScoreTask, partition: int) -> None:
        self._task = task
        self._partition = partition
        self._workers: list[str] = []
        self._client: Optional[Any] = None

    def score(self, rows: "pa.RecordBatch") -> "dict[str, npt.NDArray[Any]]":
        """Outputs for the rows of one record batch, at most task.batch_rows of them."""
        from ballast.spark.convert import RowFault, to_dense

        inputs = []
        for source, index in self._task.inputs:
            try:
                inputs.append((source.target, to_dense(rows.column(index), source.target, source.nested)))
            except RowFault as fault:
                facts = {"column": source.column, "expected": str(source.target), "found": fault.found, "partition": str(self._partition)}
                message = f'column "{source.column}" holds {fault.found}, the model expects {source.target} (partition {self._partition})'
                raise BallastError(fault.reason, message, facts) from None
        return self._infer(inputs)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _infer(self, inputs: Sequence[Any]) -> "dict[str, npt.NDArray[Any]]":
        from ballast.channel import backoff_s
        from ballast.inference import InferenceClient

        deadline = time.monotonic() + self._task.patience_s
        tries = 0
        while True:
            try:
                if self._client is None:
                    self._client = InferenceClient(self._next_worker())
                return self._client.infer(self._task.run, self._task.version, inputs, self._task.outputs)
            except BallastError as e:
                self.close()
                if not (e.retryable or e.code == "RESOURCE_EXHAUSTED"):
                    raise
                if time.monotonic() > deadline:
                    text = f"no worker scored for {self._task.patience_s:.0f} s (patience_s=): {e.message}"
                    raise BallastError("SCORING_LOST", text, e.metadata, e.code) from None
            time.sleep(backoff_s(tries, longest_s=2.0))
            tries += 1

    def _next_worker(self) -> str:
        from ballast.channel import Connection
        from ballast.v1 import control_pb2

        if not self._workers:
            with Connection(self._task.address) as connection:
                state = connection.call("Cluster", control_pb2.ClusterRequest(), timeout_s=10.0)
            self._workers = sorted(w.address for w in state.workers)
            if not self._workers:
                raise BallastError("NO_WORKER", f"no worker is attached to {self._task.address}", code="UNAVAILABLE")
            random.Random(self._partition).shuffle(self._workers)
        return self._workers.pop()
