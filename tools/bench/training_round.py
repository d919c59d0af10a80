"""One training through Ballast, measured: its rate as the coordinator counts rows, CPU by kind of process, bytes, the workers' time."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import ballast
import ballast.spark
from ballast.channel import Connection
from ballast.errors import BallastError
from ballast.runs import get_run
from tools.bench import cpu, plain
from tools.bench.cluster import pids
from tools.demo_job.job import ctl, scrape, total

POLL_S = 0.1
LOG = {"until durable": "ballast_coordinator_commit_seconds_sum", "writes and syncs": "ballast_log_fsync_seconds_sum"}
BYTES = {"push": "ballast_push_sent_bytes_total", "push as fp32": "ballast_push_fp32_bytes_total", "pull": "ballast_pull_received_bytes_total"}


@dataclass(frozen=True)
class Round:
    rows: int
    rows_per_second: float  # between the first and the last step
    call_seconds: float  # of train(): with Spark's jobs, the check of the data, loading the model
    steps: int
    steps_part_full: int
    cpu: dict[str, float]  # seconds by kind of process during train()
    threads: dict[str, float]  # seconds by name of thread, of servers and workers
    bytes: dict[str, float]
    timing: dict[str, float]  # of the sessions, by phase
    other_cores: float  # busy with processes that are not part of this
    log: dict[str, float]  # seconds: of decisions until they were durable; of the log threads of all servers
    feed: dict[str, float] = field(default_factory=dict)  # of the Spark tasks: spark, pack, feed


class _Watch(threading.Thread):
    """Asks the coordinator how many rows are trained, until stopped."""

    def __init__(self, address: str, run: str) -> None:
        super().__init__(daemon=True)
        self._address, self._run, self._done = address, run, threading.Event()
        self.samples: list[tuple[float, int]] = []  # only those where the count grew

    def run(self) -> None:
        with Connection(self._address) as connection:
            while not self._done.wait(POLL_S):
                try:
                    rows = get_run(connection, self._run, full=False).rows_trained
                except BallastError as e:
                    if e.reason == "NO_RUN":
                        continue
                    raise
                if rows > (self.samples[-1][1] if self.samples else 0):
                    self.samples.append((time.monotonic(), rows))

    def stop(self) -> float:
        """Rows a second between the first and the last growth that was seen."""
        self._done.set()
        self.join()
        (start, first), (end, last) = self.samples[0], self.samples[-1]
        return (last - first) / (end - start)


def measure(cluster: dict[str, Any], frame: Any, model: str, run: str, epochs: int, batch_rows: int, staleness: int) -> Round:
    servers, workers = pids(cluster, "server"), pids(cluster, "worker")
    before = cpu.by_kind(servers, workers, os.getpid()), cpu.by_thread(servers + workers), _bytes(cluster), _log(cluster)
    others = cpu.Others()
    watch = _Watch(cluster["server"], run)
    watch.start()
    started = time.monotonic()
    with ballast.spark.connect(cluster["server"]) as ps:
        result = ps.train(
            frame, model=model, features=["tokens"], label="label", id_col="id", epochs=epochs, batch_rows=batch_rows, step_rows=2 * batch_rows,
            optimizer=ballast.Adam(lr=plain.LEARNING_RATE), codec="int8", staleness_max=staleness, run_id=run, progress=False,
        )  # fmt: skip
    seconds = time.monotonic() - started
    rate = watch.stop()
    after = cpu.by_kind(servers, workers, os.getpid()), cpu.by_thread(servers + workers), _bytes(cluster), _log(cluster)
    used = dict(after[0] - before[0])
    other_cores = others.cores(sum(used.values()))
    shown = ctl("--server", cluster["server"], "run", "show", run)
    return Round(
        rows=result.rows_trained, rows_per_second=rate, call_seconds=seconds, steps=shown["steps"], steps_part_full=shown["steps_part_full"],
        cpu=used, threads=dict(cpu.spent(before[1], after[1])), bytes=dict(after[2] - before[2]), log=dict(after[3] - before[3]), timing=shown["timing_seconds"], other_cores=other_cores,
        feed={phase: result.timing[phase] for phase in ("spark", "pack", "feed")},
    )  # fmt: skip


def _log(cluster: dict[str, Any]) -> Counter[str]:
    servers = [scrape(p["metrics_address"]) for p in cluster["processes"] if p["name"].startswith("server")]
    return Counter({name: total(servers, metric) for name, metric in LOG.items()})


def _bytes(cluster: dict[str, Any]) -> Counter[str]:
    workers = [scrape(p["metrics_address"]) for p in cluster["processes"] if p["name"].startswith("worker")]
    return Counter({name: total(workers, metric) for name, metric in BYTES.items()})
