"""What feeds the run of a round while its processes die, and how its rows are counted at the end: threads, or a real Spark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Protocol

import ballast
import ballast.spark
from ballast.channel import Connection
from ballast.errors import BallastError
from ballast.model import ModelFile
from ballast.optim import Optimizer
from ballast.runs import get_run
from ballast.spark.spec import Options
from tests.crash import oracles
from tests.support import audit
from tests.support.cluster import Cluster, wait_for
from tests.support.feeder import FeederJob, in_background
from tests.support.rows import CounterRows, VectorRows

PARTITIONS = 4
SPARK_ROWS = 2000  # of an epoch


class Feeding(Protocol):
    """One run that is fed. `count` grows as batches are acknowledged; `last_version`: whoever feeds was told that it is durable."""

    def start(self) -> None: ...
    def count(self) -> int: ...
    @property
    def last_version(self) -> int: ...
    def over(self) -> bool: ...
    def stop(self) -> None: ...
    def finish(self) -> int: ...


class ThreadFeeding:
    """Threads of this process through the code of ballast.spark; one epoch that goes on until `finish`, which returns its rows."""

    def __init__(self, cluster: Cluster, run: str, model: ModelFile, slots: int, optimizer: Optimizer, options: Options, patience_s: float) -> None:
        source: Any = oracles.SlotRows(4_000_000, slots, PARTITIONS) if slots else VectorRows(4_000_000, PARTITIONS)
        self._rows = oracles.CountedRows(source, options.batch_rows)
        self._job = FeederJob(cluster.address, run, model, self._rows, optimizer, options, patience_s=patience_s)
        self._rows.acked = self._job.acks.count
        self._cluster, self._slots, self._patience_s = cluster, slots, patience_s

    def start(self) -> None:
        self._job.create()
        self._job.begin(1)
        self._feeding = in_background(lambda: self._job.feed_all(1))

    def count(self) -> int:
        return self._job.acks.count()

    @property
    def last_version(self) -> int:
        return self._job.acks.last_version

    def over(self) -> bool:
        return False

    def stop(self) -> None:
        self._rows.stop()

    def finish(self) -> int:
        """What a rollback has undone is fed again. Each row counts once."""
        self.stop()
        report = self._job.commit(1, self._feeding(self._patience_s))
        assert report.committed or report.missing, report
        self._rows.again()
        while not report.committed:
            report = self._job.commit(1, self._job.feed_all(1))
        given = self._rows.rows
        assert report.rows_in == report.rows_trained == given and not report.rows_skipped, f"{given} rows were given: {report}"
        if self._slots:
            weights = audit.live_weights(self._cluster, self._job.run)["weight"]
            assert (weights == self._rows.counts(self._slots)).all(), "a row was lost or trained twice"
        return given


class SparkFeeding:
    """ballast.spark on a real Spark with two executors: `epochs` passes over a data frame. It ends by itself."""

    def __init__(self, spark: Any, cluster: Cluster, run: str, model: ModelFile, slots: int, options: Options, patience_s: float) -> None:
        self._spark, self._cluster, self._run, self._model, self._slots = spark, cluster, run, model, slots
        self._options, self._patience_s = options, patience_s
        self._rows_trained = 0
        self._ended = False
        self.last_version = 0  # of the last epoch that the driver committed

    def start(self) -> None:
        self._training = in_background(self._train)

    def _train(self) -> Any:
        o = self._options
        df = self._spark.range(SPARK_ROWS).selectExpr("id", f"id % {self._slots} as slot", "cast(1 as float) as amount")
        try:
            with ballast.spark.connect(self._cluster.address) as ps:
                return ps.train(
                    df, model=self._model.path, features=["slot", "amount"], id_col="id", run_id=self._run, epochs=o.epochs, batch_rows=o.batch_rows,
                    step_rows=o.step_rows, partitions=o.partitions, optimizer=ballast.SGD(lr=1.0), reduction=o.reduction, codec=o.codec,
                    staleness_max=o.staleness_max, durability=o.durability, checkpoint_versions=o.checkpoint_versions, lease_s=o.lease_s, stall_s=10.0,
                    patience_s=self._patience_s, progress=False,
                )  # fmt: skip
        finally:
            self._ended = True

    def count(self) -> int:
        """As long as server 0 is away, what it said last."""
        try:
            with Connection(self._cluster.address) as connection:
                run = get_run(connection, self._run, timeout_s=5.0, full=False)
        except BallastError:
            return self._rows_trained // self._options.batch_rows
        self._rows_trained = int(run.rows_trained)
        self.last_version = max([self.last_version, *(int(e.manifest_version) for e in run.epochs if e.committed)])
        return self._rows_trained // self._options.batch_rows

    def over(self) -> bool:
        return self._ended

    def stop(self) -> None:
        """It cannot be stopped between two rows; `finish` waits."""

    def finish(self) -> int:
        result = self._training(self._patience_s + 10.0 * self._options.epochs)
        rows = SPARK_ROWS * self._options.epochs
        assert result.rows_in == result.rows_trained == rows and not result.rows_skipped, result
        weights = audit.live_weights(self._cluster, self._run)["weight"]
        assert (weights == CounterRows(SPARK_ROWS, self._slots, PARTITIONS).expected(self._options.epochs)).all(), "a row was lost or trained twice"
        return rows


def await_progress(feeding: Feeding, batches: int, seconds: float) -> None:
    """That so many more batches are acknowledged, or that it has ended."""
    goal = feeding.count() + batches
    wait_for(f"{batches} acknowledgements", lambda: feeding.count() >= goal or feeding.over(), seconds)
