"""Small runs that come and go while servers are killed: created, an epoch of no rows begun and committed, sometimes rolled back, removed.

They pass the points that one long run does not, and must leave nothing behind on any server.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Optional

from ballast.channel import Connection
from ballast.errors import BallastError
from ballast.model import ModelFile
from ballast.optim import Optimizer
from ballast.spark.feed import FeedCounts
from ballast.spark.spec import Options, make_spec
from ballast.v1 import control_pb2
from tests.support.cluster import patience, wait_for
from tests.support.feeder import FeederJob, RowSource

PATIENCE_S = patience(60)
PAUSE_S = 0.2


class SideRuns:
    """Runs from the constructor on, on a thread of its own, until finish(). `row`: one row in one partition."""

    def __init__(self, address: str, model: ModelFile, row: RowSource, optimizer: Optimizer, options: Options, rollbacks: bool = False) -> None:
        self.removed = 0
        self._row, self._rollbacks = row, rollbacks
        self._address, self._model, self._optimizer, self._options = address, model, optimizer, options
        self._stop = threading.Event()
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def finish(self, directory: Path, servers: list[str], kept: str) -> None:
        """Ends after the removal of the run that lives now; then only the run `kept` has a log on any server."""
        self.stop()
        self._thread.join(3 * PATIENCE_S)
        assert not self._thread.is_alive(), "a call of a side run hangs"
        if self._error is not None:
            raise self._error
        for server in servers:
            logs = directory / server / "runs"
            wait_for(f"{server} to hold run {kept} only", lambda logs=logs: [p.name for p in logs.iterdir()] == [kept], 10)  # type: ignore[misc]

    def _loop(self) -> None:
        try:
            while not self._stop.wait(PAUSE_S):
                self._one(f"side-{self.removed % 3}")  # names come again: each is another generation
                self.removed += 1
        except BaseException as error:
            self._error = error

    def _one(self, name: str) -> None:
        job = FeederJob(self._address, name, self._model, self._row, self._optimizer, self._options, patience_s=PATIENCE_S)
        while not self._create(name):
            continue
        job.begin(1)
        report: Any = job.commit(1, {0: FeedCounts(0)})
        assert report.committed and report.rows_in == 0, report
        if self._rollbacks:
            self._undo_an_epoch(job, int(report.manifest_version))
        with Connection(self._address) as connection:
            try:
                connection.call("DeleteRun", control_pb2.RunRef(run=name), timeout_s=30.0, patience_s=PATIENCE_S)
            except BallastError as error:
                if error.code != "NOT_FOUND":  # a try whose answer was lost has removed it
                    raise

    def _undo_an_epoch(self, job: FeederJob, version: int) -> None:
        """The second epoch trains its row and is committed; a rollback forgets both; it comes again."""
        assert job.run_epoch(2).committed
        with Connection(self._address) as connection:
            try:
                connection.call("Rollback", control_pb2.ManifestRef(run=job.run, version=version), timeout_s=30.0, patience_s=PATIENCE_S)
            except BallastError as error:
                if error.reason != "NO_MANIFEST":  # tries whose answers were lost have done it, and their checkpoints pushed the first one out
                    raise
        run = job.show()
        assert run.generation > 1 and [e.epoch for e in run.epochs] == [1] and run.rows_trained == 0, run
        report = job.run_epoch(2)
        assert report.committed and report.rows_trained == 1, report

    def _create(self, name: str) -> bool:
        """False: an error was planted in it, and nothing may be left of the try."""
        spec = make_spec(self._model, name, self._options, self._optimizer, None)  # the model is there: the run that is fed has it too
        try:
            with Connection(self._address) as connection:
                connection.call("CreateRun", spec, patience_s=PATIENCE_S)
        except BallastError as error:
            if not str(error).startswith("failpoint "):
                raise
            return False
        return True
