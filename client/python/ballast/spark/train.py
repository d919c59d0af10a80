"""The driver's side of a training: check, create the run, feed epoch after epoch, report.

The same run_id again resumes: committed epochs are skipped, and inside an epoch the coordinator's ledger knows every batch that is done.
So nothing of the training's state lives here, and a driver that dies loses nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from ballast.artifacts import get_artifact, put_artifact
from ballast.channel import Connection
from ballast.errors import BallastError
from ballast.model import ModelFile, same_program
from ballast.optim import Optimizer, Schedule
from ballast.runs import get_run
from ballast.spark.check import count_rows
from ballast.spark.columns import Features, Source, check_id, training_sources
from ballast.spark.epoch import epoch_frame, partition_of, run_epoch
from ballast.spark.evaluate import evaluate
from ballast.spark.feed import FeedTask
from ballast.spark.progress import Progress
from ballast.spark.result import TrainResult, make_result
from ballast.spark.spec import Init, Options, check, make_spec, parse_init
from ballast.weights import encode_weights

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


_UNDONE = ("EPOCH_NOT_BEGUN", "EPOCH_ORDER")  # what is said of an epoch that a rollback has undone


@dataclass(frozen=True)
class Training:
    """One call of `train`, its arguments resolved."""

    connection: Connection
    df: "DataFrame"
    model: ModelFile
    features: Features
    label: Optional[str]
    id_column: Optional[str]
    run_id: str
    options: Options
    optimizer: Optimizer
    schedule: Optional[Schedule]
    init: Init
    eval_df: "Optional[DataFrame]"
    check_data: bool
    progress: bool
    patience_s: float
    stall_s: float

    def execute(self) -> TrainResult:
        started = time.monotonic()
        check(self.options, self.run_id, self.id_column)
        sources = self._sources()
        spec = make_spec(self.model, self.run_id, self.options, self.optimizer, self.schedule)
        existing = self._existing()
        rows = self._check_data(sources) if existing is None else 0  # before the run is made
        self._set_init(spec, existing)
        run = self._create(spec, existing)
        try:
            counts = self._epochs(run, sources, rows)
        except (KeyboardInterrupt, SystemExit):
            self._say(f'interrupted; everything acknowledged so far stays. train(..., run_id="{self.run_id}") resumes')
            raise
        done = get_run(self.connection, self.run_id, patience_s=self.patience_s)
        result = make_result(done, self.connection.address, counts, not run.created, time.monotonic() - started, run.plan)
        return self._evaluated(result)

    # ---- before

    def _sources(self) -> tuple[Source, ...]:
        schema = self.df.schema
        sources = tuple(training_sources(schema, self.model.description, self.features, self.label))
        if self.id_column is not None:
            check_id(schema, self.id_column)
        if self.eval_df is not None:
            training_sources(self.eval_df.schema, self.model.description, self.features, self.label)
        return sources

    def _set_init(self, spec: Any, existing: Optional[Any]) -> None:
        if self.init is None:
            return
        if isinstance(self.init, Mapping):
            spec.init.weights_sha256 = put_artifact(self.connection, encode_weights(self.init, self.model), self.patience_s)
        elif isinstance(self.init, str):
            spec.init.run, spec.init.version = parse_init(self.init)
            if existing is None and not get_run(self.connection, spec.init.run, full=False).manifest_version:
                raise BallastError("NO_MANIFEST", f'init="{self.init}": the run has no checkpoint yet to start from', {"run": spec.init.run})
        else:
            raise BallastError("BAD_SPEC", f'init= takes "run@version" or a state dict, not {type(self.init).__name__}')

    def _existing(self) -> Optional[Any]:
        """The Run of this name, if there is one already."""
        try:
            return get_run(self.connection, self.run_id)
        except BallastError as e:
            if e.reason == "NO_RUN":
                return None
            raise

    def _create(self, spec: Any, existing: Optional[Any]) -> Any:
        with open(self.model.path, "rb") as f:
            content = f.read()
        if put_artifact(self.connection, content, self.patience_s) != self.model.sha256:
            raise BallastError("MODEL_INVALID", f"{self.model.path} changed while it was read")
        if existing is not None:
            self._keep_model_of_run(spec, existing.spec, content)
        run = self.connection.call("CreateRun", spec, patience_s=min(60.0, self.patience_s))
        if run.created:
            for line in run.plan:
                self._say(line)
        return run

    def _keep_model_of_run(self, spec: Any, existing: Any, content: bytes) -> None:
        """A program that exports its model each time it starts makes another file of the same module. To resume, the run's own file counts."""
        if existing.model_sha256 == spec.model_sha256 or existing.model_json != spec.model_json:
            return
        if same_program(get_artifact(self.connection, existing.model_sha256), content):
            spec.model_sha256 = existing.model_sha256
            self._say("the model was exported again; the run goes on with its own weights")

    # ---- epochs

    def _epochs(self, run: Any, sources: tuple[Source, ...], rows: int) -> list[Any]:
        """Feeds what is not committed yet. `rows`: of the data frame, 0 when not counted yet. Returns the feeds' counts."""
        epochs = self.options.epochs
        committed = {e.epoch for e in run.epochs if e.committed}
        todo = [e for e in range(1, epochs + 1) if e not in committed]
        if not todo:
            self._say(f"complete ({epochs} epochs, checkpoint {run.manifest_version}); nothing to do. Use a new run_id to train again")
            return []
        if not run.created:
            self._say(f"resumes at epoch {todo[0]} of {epochs}, after {run.rows_trained:,} rows")
        rows = rows or self._check_data(sources)
        counts: list[Any] = []
        tag = f"ballast-{self.run_id}-{os.getpid()}"
        with _progress(self, rows * epochs):
            while todo:
                epoch = todo[0]
                frame = epoch_frame(self.df, sources, self.id_column, self.options.seed, epoch, self.options.partitions)
                try:
                    counts += run_epoch(self.connection, frame, self._task(sources, epoch), self.options.partitions, tag)[1]
                    todo = todo[1:]
                except BallastError as e:
                    if e.reason not in _UNDONE:
                        raise
                    run, before = get_run(self.connection, self.run_id, patience_s=self.patience_s), run
                    if run.generation == before.generation:
                        raise
                    committed = {e.epoch for e in run.epochs if e.committed}
                    todo = [e for e in range(1, epochs + 1) if e not in committed]
                    self._say(f"was rolled back; goes on at epoch {todo[0] if todo else epochs} with {run.rows_trained:,} rows trained")
        return counts

    def _check_data(self, sources: Sequence[Source]) -> int:
        """Rows of the data frame; 0 when nobody wants to know."""
        if not self.check_data:
            return 0
        place = partition_of(self.id_column, self.options.seed, 1, self.options.partitions) if self.id_column else None
        rows = count_rows(self.df, sources, self.id_column, place)
        if rows == 0:
            raise BallastError("NO_ROWS", "the data frame has no rows; nothing was trained")
        return rows

    def _task(self, sources: tuple[Source, ...], epoch: int) -> FeedTask:
        return FeedTask(
            address=self.connection.address,
            run=self.run_id,
            epoch=epoch,
            sources=sources,
            schema=self.model.description.schema,
            batch_rows=self.options.batch_rows,
            has_ids=self.id_column is not None and self.options.delivery == "exactly_once",
            patience_s=self.patience_s,
            stall_s=self.stall_s,
        )

    # ---- after

    def _evaluated(self, result: TrainResult) -> TrainResult:
        if self.eval_df is None:
            return result
        score = evaluate(self.connection, self.eval_df, self.run_id, result.manifest, self.model.description, self.features, str(self.label), self.patience_s)
        return replace(result, accuracy=score.accuracy, eval_loss=score.loss, eval_rows=score.rows)

    def _say(self, text: str) -> None:
        if self.progress:
            print(f"{self.run_id}: {text}", file=sys.stderr, flush=True)


def _progress(training: Training, rows_total: int) -> Any:
    import contextlib

    if not training.progress:
        return contextlib.nullcontext()
    return Progress(training.connection, training.run_id, rows_total, training.options.epochs)


