"""A Ballast cluster as Spark programs see it: `ballast.spark.connect(address)` gives a Cluster.

Works with PySpark 3.5 and 4.x, classic and Connect: only the DataFrame API is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Union

from ballast import runs
from ballast.channel import Connection
from ballast.errors import BallastError
from ballast.model import read_model
from ballast.optim import Adam, Optimizer, Schedule
from ballast.spark.columns import Features
from ballast.spark.result import TrainResult
from ballast.spark.spec import Init, Options, new_run_id

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def connect(address: Optional[str] = None) -> "Cluster":
    """Reaches server 0 at "host:port" (default: the environment variable BALLAST_ADDRESS) within five seconds, or says why not."""
    address = address or os.environ.get(runs.ADDRESS_VARIABLE)
    if not address:
        raise BallastError("BAD_SPEC", f'give the address of server 0, as "host:port", or set {runs.ADDRESS_VARIABLE}')
    connection = Connection(address)
    try:
        connection.check()
    except BallastError:
        connection.close()
        raise
    return Cluster(connection)


class Cluster:
    """Made by `connect`. May be used from several threads. The executors must reach the address too."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def address(self) -> str:
        return self._connection.address

    def train(
        self,
        df: "DataFrame",
        model: Union[str, "os.PathLike[str]"],
        features: Features,
        label: Optional[str] = None,
        *,
        id_col: Optional[str] = None,
        epochs: int = 1,
        batch_rows: int = 128,
        step_rows: Optional[int] = None,
        optimizer: Optional[Optimizer] = None,
        schedule: Optional[Schedule] = None,
        clip_norm: Optional[float] = None,
        seed: int = 0,
        init: Init = None,
        eval_df: "Optional[DataFrame]" = None,
        run_id: Optional[str] = None,
        codec: str = "int8",
        pull_codec: str = "fp32",
        staleness_max: Optional[int] = 0,
        partitions: int = 8,
        reduction: str = "mean",
        delivery: str = "exactly_once",
        durability: str = "log",
        contribution_rows: int = 0,
        checkpoint_versions: int = 0,
        checkpoint_seconds: int = 300,
        skips_max: int = 8,
        linger_ms: int = 2000,
        lease_s: float = 30.0,
        check_data: bool = True,
        progress: bool = True,
        patience_s: float = 300.0,
        stall_s: float = 120.0,
    ) -> TrainResult:
        """Trains `model` on the rows of `df`: each row once an epoch, whatever fails in between. Blocks until done; runs Spark jobs itself.

        What
          model        a file written by ballast.export
          features     {input: column}, or the columns in the order of the model's inputs
          label        the label's column
          id_col       a column with a unique and stable id for every row. It orders the rows (with `seed` and the epoch), so that a retried
                       task sends the same batches again. Required, unless delivery="at_least_once"
          eval_df      held-out rows, scored after the last epoch: accuracy, or the squared error
          run_id       the run's name. The same run_id again resumes after any crash, or says that the run is complete. Default: a new one
          init         where the weights start: None: the model file; "run@version": a checkpoint of another run ("run": its newest);
                       a state dict

        How
          batch_rows   rows computed at a time; step_rows: rows of one optimizer update (the global batch; default batch_rows; 0: every
                       contribution is an update of its own); contribution_rows: rows that a worker sums before it sends (0: step_rows)
          optimizer    ballast.SGD, Adam (default) or AdamW, with Groups; schedule: ballast.Constant (default) or WarmupCosine
          clip_norm    bound of the global norm of a step's gradient; reduction: "mean" or "sum" of the rows' losses
          codec        of gradients: "int8" or "bf16" (with error feedback: what a code could not say is carried to the worker's next one, and ends with
                       the worker's session), or "fp32"; pull_codec: of weights on their way to workers
          staleness_max  versions that a gradient may be behind when it counts; 0 is synchronous, None is unbounded
          durability   "log": no server crash loses anything. "checkpoint": gradients are not logged; when a server crashes the run goes back to its
                       newest checkpoint and the rows since then are fed again, so checkpoint often enough
          partitions, seed  fix the order of rows and are part of the run, not of the cluster's size
          checkpoint_versions, checkpoint_seconds  how often to checkpoint inside an epoch (0: never); the end of an epoch always does

        When something is slow or broken
          skips_max    so many batches in a row that cannot be trained stop the run
          linger_ms    longest wait for rows of a part-full step; lease_s: a worker without progress for so long loses its rows to others; it doubles
          patience_s   a task without progress for so long fails; stall_s: it tries another worker when one says nothing for so long
          check_data   look at all rows once before the first is trained: a row of a wrong shape is then found before anything happened
          progress     write progress to stderr

        Raises BallastError; `reason` tells errors apart. After any error, or Ctrl-C, the same run_id resumes.
        """
        from ballast.spark.train import Training

        archive = read_model(model)
        if run_id is None:
            run_id = new_run_id(archive)
            if progress:
                print(f'run_id="{run_id}" (generated; give it to resume)', file=sys.stderr, flush=True)
        options = Options(
            epochs=epochs,
            batch_rows=batch_rows,
            step_rows=batch_rows if step_rows is None else step_rows,
            contribution_rows=contribution_rows,
            partitions=partitions,
            seed=seed,
            clip_norm=clip_norm or 0.0,
            codec=codec,
            pull_codec=pull_codec,
            staleness_max=staleness_max,
            reduction=reduction,
            durability=durability,
            delivery=delivery,
            checkpoint_versions=checkpoint_versions,
            checkpoint_seconds=checkpoint_seconds,
            skips_max=skips_max,
            linger_ms=linger_ms,
            lease_s=lease_s,
        )
        training = Training(
            connection=self._connection,
            df=df,
            model=archive,
            features=features,
            label=label,
            id_column=id_col,
            run_id=run_id,
            options=options,
            optimizer=optimizer or Adam(),
            schedule=schedule,
            init=init,
            eval_df=eval_df,
            check_data=check_data,
            progress=progress,
            patience_s=patience_s,
            stall_s=stall_s,
        )
        return training.execute()

    def score(
        self,
        df: "DataFrame",
        run: Union[str, TrainResult, None] = None,
        *,
        model: Optional[str] = None,
        feed: Features,
        fetch: Mapping[str, str],
        batch_rows: int = 1024,
        patience_s: float = 300.0,
    ) -> "DataFrame":
        """`df` with the outputs of a run as new columns: fetch={output: new column}. Lazy: rows are scored when an action needs them.

        run    "run" (its newest checkpoint, fixed now), "run@version", or what `train` returned; `model` is another name for it
        feed   {input: column}, or the columns in the order of the model's inputs
        """
        from ballast.spark.score import score

        chosen = run if run is not None else model
        if chosen is None or (run is not None and model is not None):
            raise BallastError("BAD_SPEC", "score() needs the run whose weights it uses: run= (or model=)")
        name = chosen if isinstance(chosen, str) else chosen.run_id
        return score(self._connection, df, name, feed, fetch, batch_rows, patience_s)

    def state_dict(self, run: Union[str, TrainResult]) -> dict[str, Any]:
        """The weights of a run as torch tensors; see ballast.state_dict."""
        return runs.state_dict(run, self.address)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Cluster({self.address!r})"
