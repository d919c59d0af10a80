"""Spark without Spark: a run that is fed by threads of this process, through the very code of ballast.spark that tasks run.

What Spark adds (scheduling, retries, speculation) tests do by hand: a partition can be fed twice at once, stopped at any batch, or again.

    job = FeederJob(cluster.address, "run", model_file, CounterRows(...), epochs=1)
    job.create()
    report = job.run_epoch(1)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

import pyarrow as pa

import ballast
from ballast.artifacts import put_artifact
from ballast.channel import Connection
from ballast.model import ModelFile, read_model
from ballast.optim import Optimizer
from ballast.runs import get_run
from ballast.spark.batches import Packer
from ballast.spark.columns import Source
from ballast.spark.feed import FeedCounts, FeedTask
from ballast.spark.sender import PartitionFeed
from ballast.spark.spec import Options, make_spec
from ballast.spark.window import Window
from ballast.v1 import control_pb2
from tests.support import models
from tests.support.cluster import patience


class RowSource(Protocol):
    @property
    def partitions(self) -> int: ...

    def partition(self, epoch: int, partition: int) -> Iterator[pa.RecordBatch]: ...


class TaskFailed(Exception):
    """What a test lets a task raise after its last batch."""


def export_counter(path: Path, slots: int) -> ModelFile:
    ballast.export(models.Counter(slots), path, {"slot": ("int64", ()), "amount": ("float32", ())}, loss="loss")
    return read_model(path)


def export_mlp(path: Path, features: int = 16, classes: int = 5, width: int = 64) -> ModelFile:
    import torch

    torch.manual_seed(7)
    ballast.export(models.Mlp(features, classes, width), path, {"x": ("float32", (features,))}, label=("int64", ()))
    return read_model(path)


def options(**changes: Any) -> Options:
    """Options of a small run; checkpoints only at the end of an epoch."""
    values: dict[str, Any] = dict(
        epochs=1, batch_rows=16, step_rows=64, contribution_rows=0, partitions=4, seed=1, clip_norm=0.0, codec="fp32", pull_codec="fp32",
        staleness_max=0, reduction="sum", durability="log", delivery="exactly_once", checkpoint_versions=0, checkpoint_seconds=0, skips_max=8,
        linger_ms=2000, lease_s=30.0,
    )  # fmt: skip
    return Options(**{**values, **changes})


@dataclass(frozen=True)
class Ack:
    epoch: int
    partition: int
    seq: int
    outcome: str  # TRAINED, DUPLICATE or SKIPPED
    version: int
    durable: bool
    at: float = 0.0  # time.monotonic()
    waited_s: float = 0.0  # since the batch was sent, as credit allowed it


class AckLog:
    """Every acknowledgement that any feed of a job got. Any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._acks: list[Ack] = []
        self._last_version = 0

    def add(self, ack: Ack) -> None:
        with self._changed:
            self._acks.append(ack)
            if ack.outcome == "TRAINED":
                self._last_version = max(self._last_version, ack.version)
            self._changed.notify_all()

    @property
    def last_version(self) -> int:
        """Highest version that a TRAINED row was acknowledged with: from then on it must survive everything."""
        with self._changed:
            return self._last_version

    def all(self) -> list[Ack]:
        with self._changed:
            return list(self._acks)

    def count(self, outcome: Optional[str] = None) -> int:
        with self._changed:
            return len([a for a in self._acks if outcome in (None, a.outcome)])

    def await_count(self, count: int, seconds: float = 60) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._acks) >= count, patience(seconds)):
                raise TimeoutError(f"waited {seconds:.0f} s for {count} acknowledgements, {len(self._acks)} came")


class _ObservedFeed(PartitionFeed):
    def __init__(self, task: FeedTask, partition: int, attempt: str, log: AckLog, avoid: list[str], window_bytes: Optional[int]) -> None:
        super().__init__(task, partition, attempt)
        self._window_bytes = window_bytes
        self._log = log
        self._avoid = list(avoid)
        self._sent: dict[int, float] = {}  # by seq, when

    def _first_place(self) -> None:
        super()._first_place()
        if self._window_bytes is not None:
            self._window = Window(self._window_bytes, self._place.message.window_rows)  # type: ignore[union-attr]

    def _pump(self) -> None:
        before = self._window.unsent_seqs()
        super()._pump()
        now = time.monotonic()
        self._sent.update(dict.fromkeys(before[: len(before) - len(self._window.unsent_seqs())], now))

    def _on_ack(self, ack: Any) -> None:
        super()._on_ack(ack)
        now = time.monotonic()
        waited = now - self._sent.pop(ack.seq, now)
        self._log.add(Ack(self._task.epoch, self._partition, ack.seq, ack.Outcome.Name(ack.outcome), ack.version, ack.durable, now, waited))


class FeederJob:
    """One run. Create it (idempotent), then feed epochs; every method may be called from several threads."""

    def __init__(self, address: str, run: str, model: ModelFile, rows: RowSource, optimizer: Optional[Optimizer] = None,
                 run_options: Optional[Options] = None, patience_s: float = 60.0, stall_s: float = 30.0) -> None:  # fmt: skip
        self.address, self.run, self.model, self.rows = address, run, model, rows
        self.options = run_options or options(partitions=rows.partitions)
        self.optimizer = optimizer or ballast.SGD(lr=1.0)
        self.patience_s, self.stall_s = patience(patience_s), patience(stall_s)
        self.window_bytes: Optional[int] = None  # what a task holds beyond two steps of rows; None: what the server says
        self.acks = AckLog()

    def create(self) -> Any:
        """Stores the model and creates the run. Returns the Run message."""
        with Connection(self.address) as connection:
            content = Path(self.model.path).read_bytes()
            put_artifact(connection, content)
            spec = make_spec(self.model, self.run, self.options, self.optimizer, None)
            return connection.call("CreateRun", spec, patience_s=self.patience_s)

    def show(self) -> Any:
        with Connection(self.address) as connection:
            return get_run(connection, self.run, patience_s=self.patience_s)

    # ---- epochs

    def run_epoch(self, epoch: int) -> Any:
        """Begins, feeds all partitions at once, commits. Returns the EpochReport."""
        if self.begin(epoch).committed:
            return self.commit(epoch, {})
        return self.commit(epoch, self.feed_all(epoch))

    def begin(self, epoch: int) -> Any:
        message = control_pb2.Epoch(
            run=self.run, epoch=epoch, partitions=self.rows.partitions, batch_rows=self.options.batch_rows, schema=self.model.description.schema
        )
        with Connection(self.address) as connection:
            return connection.call("BeginEpoch", message, patience_s=self.patience_s)

    def feed_all(self, epoch: int, partitions: Optional[list[int]] = None) -> dict[int, FeedCounts]:
        """Some partitions (default: all), at once."""
        with ThreadPoolExecutor(self.rows.partitions) as pool:
            jobs = {p: pool.submit(self.feed, epoch, p) for p in partitions or range(self.rows.partitions)}
            return {p: job.result() for p, job in jobs.items()}

    def commit(self, epoch: int, counts: dict[int, FeedCounts]) -> Any:
        message = control_pb2.EpochCounts(run=self.run, epoch=epoch)
        for p in sorted(counts):
            message.partitions.add(partition=p, batches=counts[p].batches, rows=counts[p].rows)
        with Connection(self.address) as connection:
            return connection.call("CommitEpoch", message, timeout_s=patience(60), patience_s=self.patience_s)

    # ---- one task attempt

    def task(self, epoch: int) -> FeedTask:
        return FeedTask(
            address=self.address,
            run=self.run,
            epoch=epoch,
            sources=tuple(Source(c, c.name, False) for c in self.model.description.columns),
            schema=self.model.description.schema,
            batch_rows=self.options.batch_rows,
            has_ids=True,
            patience_s=self.patience_s,
            stall_s=self.stall_s,
        )

    def feed(self, epoch: int, partition: int, attempt: str = "0", before: Optional[Callable[[int], None]] = None,
             avoid: tuple[str, ...] = (), fail_at_end: bool = False) -> FeedCounts:  # fmt: skip
        """Feeds one partition and returns when all of it is done.

        before       called with each seq before the batch is offered: may wait, or raise to kill the attempt
        avoid        addresses of workers that this attempt should not use
        fail_at_end  raises TaskFailed after every batch was acknowledged
        """
        packer = Packer(self.task(epoch).sources, self.options.batch_rows, True, partition)
        feed = _ObservedFeed(self.task(epoch), partition, f"attempt {attempt}", self.acks, list(avoid), self.window_bytes)
        try:
            for batch in packer.batches(self.rows.partition(epoch, partition)):
                if before is not None:
                    before(batch.seq)
                feed.offer(batch)
            feed.finish(packer.batch_count, packer.row_count)
        finally:
            feed.close()
        if fail_at_end:
            raise TaskFailed(f"attempt {attempt} of partition {partition}")
        feed.counts.batches, feed.counts.rows = packer.batch_count, packer.row_count
        return feed.counts


def in_background(work: Callable[[], Any]) -> Callable[[float], Any]:
    """Starts `work` on a thread. The returned function waits for it (seconds) and gives its result or raises its exception."""
    outcome: dict[str, Any] = {}

    def call() -> None:
        try:
            outcome["result"] = work()
        except BaseException as e:  # raised again in the thread that waits
            outcome["error"] = e

    thread = threading.Thread(target=call, daemon=True)
    thread.start()

    def join(seconds: float = 120.0) -> Any:
        thread.join(patience(seconds))
        if thread.is_alive():
            raise TimeoutError(f"work in the background did not end within {seconds:.0f} s")
        if "error" in outcome:
            raise outcome["error"]
        return outcome["result"]

    return join
