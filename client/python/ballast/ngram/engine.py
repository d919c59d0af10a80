"""Spark as this application uses it: the session, sources, the few operations on tables, files that travel to the executors, what jobs cost.

Nothing outside of this file and sources.py calls Spark on the driver; the frames that it gives are only used with mapInArrow, repartition,
sortWithinPartitions and unionByName. Classic sessions and Spark Connect; a client of Connect sees neither the JVM's CPU time nor the tasks of a
running job.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Optional, TextIO

from ballast.errors import BallastError, fault_in
from ballast.ngram import blocks, estimator, keys, pipes, sources
from ballast.ngram.config import Model
from ballast.ngram.smoothing import Known

TEXT_ROWS = 2000  # Of a batch of sentences,
BLOB_ROWS = 32  # and of a batch of blocks, of up to a megabyte each.
_BATCH_CONF = "spark.sql.execution.arrow.maxRecordsPerBatch"


def start_session(settings: Mapping[str, str], master: str = "", remote: str = "") -> Any:
    """The session that is there, as in spark-submit, or a new one."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder: Any = SparkSession.builder
    builder = builder.appName("ballast.ngram").config("spark.ui.showConsoleProgress", "false")
    if remote:
        builder = builder.remote(remote)
    elif master:
        builder = builder.master(master)
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    if not remote and "spark.log.level" not in settings:
        session.sparkContext.setLogLevel("ERROR")  # What goes wrong is said once, at the end.
    return session


class _Travelling:
    """Files that a session sends to its executors, also to those that come later: they stay as long as this process."""

    def __init__(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ballast-ngram-files-"))
        self.names: set[str] = set()
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)


_TRAVELLING: weakref.WeakKeyDictionary[Any, _Travelling] = weakref.WeakKeyDictionary()


class Engine:
    """One for each application; close it."""

    def __init__(self, session: Any, binary: pathlib.Path, out: Optional[TextIO] = None) -> None:
        self.session = session
        self.out = out or sys.stderr
        self.connect = not hasattr(session, "_jsc") or "connect" in type(session).__module__
        self._local = tempfile.mkdtemp(prefix="ballast-ngram-driver-")
        self._travelling = _TRAVELLING.setdefault(session, _Travelling())
        self.binary = binary
        self.shipped = blocks.Shipped(self.ship(binary.read_bytes(), estimator.NAME))
        self.cores = self._cores()
        _travel_with_code(True)

    def _cores(self) -> int:
        if self.connect:
            return _connect_cores(self.session)
        return int(self.session.sparkContext.defaultParallelism)

    def ship(self, data: bytes, name: str) -> str:
        """Makes a file known to all executors; returns its name there (blocks.Shipped). Named by its content: once is enough."""
        shipped = f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
        if shipped not in self._travelling.names:
            path = self._travelling.folder / shipped
            path.write_bytes(data)
            path.chmod(0o755)
            if self.connect:
                self.session.addArtifact(str(path), file=True)
            else:
                self.session.sparkContext.addFile(str(path))
            self._travelling.names.add(shipped)
        return shipped

    def file(self, name: str) -> pathlib.Path:
        """A place for a file of the driver."""
        return pathlib.Path(self._local) / name

    # ---- tables ----------------------------------------------------------------------------------------------------------------------

    def open_source(self, model: Model) -> sources.Source:
        return sources.open_source(self.session, model)

    def first_words(self, frame: Any) -> Any:
        """words.WORDS to an Arrow table with each word once, where it is first; rows without a word stay."""
        from pyspark.sql import functions as F

        first = F.min(F.struct("entry", "file", "start", "place")).alias("first")
        grouped = frame.groupBy("word", "extra").agg(first, F.sum("sentences").alias("sentences"))
        return self._collect(grouped.select("word", "extra", "sentences", "first.entry", "first.file", "first.start", "first.place"), TEXT_ROWS)

    def sum_loads(self, frame: Any) -> Any:
        """sharding.LOADS to an Arrow table with each shard once."""
        from pyspark.sql import functions as F

        return self._collect(frame.groupBy("shard", "extra").agg(F.sum("load").alias("load")), BLOB_ROWS)

    def markers(self, parts: int) -> Any:
        """A row of kind "range" for each part, which goes there."""
        from pyspark.sql import functions as F

        here = F.element_at(F.array(*(F.lit(p) for p in keys.placement(parts))), F.col("id").cast("int") + 1)
        return self.session.range(0, parts, 1, 1).select(
            here.alias("part"),
            F.lit(0).alias("level"),
            F.col("id").cast("int").alias("shard"),
            F.lit("range").alias("kind"),
            F.lit(0).cast("long").alias("rows"),
            F.lit(b"").alias("data"),
            F.lit(None).cast("binary").alias("extra"),
        )

    def read(self, uri: str, kind: str) -> Any:
        """The rows of one kind of a table that `write` wrote with blocks.SCHEMA."""
        return self.session.read.schema(blocks.SCHEMA).parquet(uri).where(f"kind = '{kind}'")

    def write(self, frame: Any, uri: str, batch_rows: int = BLOB_ROWS) -> None:
        with self._faults(), self._batches(batch_rows):
            frame.write.mode("overwrite").option("parquet.enable.dictionary", "false").parquet(uri)

    def estimate_through_pipe(self, frame: Any, order: int, known: Known, ranges: Any, parts: list[int]) -> Any:
        """What smoothing.estimate does, with RDD.pipe()."""
        if self.connect:
            raise BallastError("BAD_CONFIG", 'carrier = "pipe" wants RDDs, which Spark Connect has not; "subprocess" does the same')
        from pyspark import SparkFiles

        command = pipes.command(self.shipped.name, known, SparkFiles.getRootDirectory())
        piped = frame.rdd.mapPartitions(pipes.to_lines(order)).pipe(command, checkCode=True)
        return self.session.createDataFrame(piped.mapPartitions(pipes.from_lines(ranges, parts)), blocks.SCHEMA, verifySchema=False)

    def _collect(self, frame: Any, batch_rows: int) -> Any:
        import pyarrow as pa

        with self._faults(), self._batches(batch_rows):
            if hasattr(frame, "toArrow"):
                return frame.toArrow()
            batches = frame._collect_as_arrow()
            return pa.Table.from_batches(batches) if batches else pa.table({name: [] for name in frame.columns})

    @contextlib.contextmanager
    def _batches(self, rows: int) -> Iterator[None]:
        """How many rows a batch between the JVM and Python has, for the jobs inside."""
        before = self.session.conf.get(_BATCH_CONF)
        self.session.conf.set(_BATCH_CONF, str(rows))
        try:
            yield
        finally:
            self.session.conf.set(_BATCH_CONF, before)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Errors of tasks as what they were."""
        try:
            yield
        except BallastError:
            raise
        except Exception as e:
            fault = fault_in(str(e))
            if fault is None:
                raise
            raise fault from e

    # ---- costs and progress ----------------------------------------------------------------------------------------------------------

    def costs(self) -> dict[str, float]:
        """Of all jobs so far: the JVM's CPU time in seconds, bytes through shuffles, tasks. Empty where Spark does not say."""
        if self.connect:
            return {}
        jvm, gateway = self.session.sparkContext._jvm, self.session.sparkContext._gateway
        try:
            store = self.session.sparkContext._jsc.sc().statusStore()
            stages = store.stageList(None, False, False, gateway.new_array(jvm.double, 0), jvm.java.util.ArrayList())
            totals = {"jvm_cpu_s": 0.0, "task_s": 0.0, "shuffle_write_bytes": 0.0, "tasks": 0.0}
            for i in range(stages.size()):
                stage = stages.apply(i)
                totals["jvm_cpu_s"] += stage.executorCpuTime() / 1e9
                totals["task_s"] += stage.executorRunTime() / 1e3
                totals["shuffle_write_bytes"] += stage.shuffleWriteBytes()
                totals["tasks"] += stage.numCompleteTasks()
            return totals
        except Exception:  # Another Spark: the report does without.
            return {}

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[None]:
        watch = _Progress(self, title)
        try:
            yield
        finally:
            watch.stop()

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def close(self) -> None:
        _travel_with_code(False)
        shutil.rmtree(self._local, ignore_errors=True)


def _travel_with_code(on: bool) -> None:
    """Whether the functions of tasks travel with this package's code, so that executors need nothing of it. Only while there is an engine: in the
    same process ballast.spark catches the errors of the module that its executors have, not of a copy that travelled."""
    from pyspark import cloudpickle

    import ballast.errors
    import ballast.ngram

    registered = cloudpickle.list_registry_pickle_by_value()
    for module in (ballast.ngram, ballast.errors):
        if on:
            cloudpickle.register_pickle_by_value(module)
        elif module.__name__ in registered:
            cloudpickle.unregister_pickle_by_value(module)


def _connect_cores(session: Any) -> int:
    """As many as Spark makes partitions of a range when it may choose."""
    from pyspark.sql import functions as F

    return int(session.range(1 << 16).select(F.spark_partition_id().alias("p")).distinct().count())


class _Progress:
    """Says every few seconds how many tasks of the running jobs are done; on a terminal the line is rewritten."""

    def __init__(self, engine: Engine, title: str) -> None:
        self._engine = engine
        self._title = title
        self._live = bool(getattr(engine.out, "isatty", lambda: False)())
        self._stop = threading.Event()
        self._said = ""
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if not engine.connect:
            self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.5 if self._live else 5.0):
            text = self._line()
            if text and text != self._said:
                self._said = text
                print(f"\r\x1b[K{text}" if self._live else text, end="" if self._live else "\n", file=self._engine.out, flush=True)

    def _line(self) -> str:
        tracker = self._engine.session.sparkContext.statusTracker()
        parts = []
        for stage in tracker.getActiveStageIds():
            info = tracker.getStageInfo(stage)
            if info is not None:
                parts.append(f"{info.numCompletedTasks}/{info.numTasks} tasks" + (f", {info.numFailedTasks} failed" if info.numFailedTasks else ""))
        return f"  {self._title}: {'; '.join(parts)}" if parts else ""

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2.0)
        if self._live and self._said:
            print("\r\x1b[K", end="", file=self._engine.out, flush=True)
