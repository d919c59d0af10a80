"""The work is really shared: between servers, between sessions, between executors; and the bytes that the metrics report are those of the kernel.

Judged from the outside: decisions, /metrics, socket counters, the process table.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ballast
import ballast.spark
from ballast.v1 import run_pb2
from tests.support import audit, sockets
from tests.support.cluster import Cluster, wait_for
from tests.support.feeder import FeederJob, export_mlp, options
from tests.support.rows import VectorRows

pytestmark = pytest.mark.e2e

WIDTH = 384  # of the model: 0.65 MB of weights, so that messages without values hardly count
ROWS = 16384
SPARK_ROWS = 4 * ROWS  # long enough that the start of one task some steps after the other does not matter
STEP_ROWS = 256


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), servers=2, workers=2, server_flags=("--log-retain", "all")) as c:
        yield c


def assert_bytes_are_shared(cluster: Cluster, run: Any) -> None:
    held = Counter[int]()
    for block in run.layout:
        held[block.shard] += block.count * (8 if run.spec.tensors[block.tensor].dtype == run_pb2.I64 else 4)
    pushed = {i: s.metric("ballast_push_received_bytes_total") for i, s in enumerate(cluster.servers)}
    pulled = {i: s.metric("ballast_pull_sent_bytes_total") for i, s in enumerate(cluster.servers)}
    for shares in (held, pushed, pulled):
        assert min(shares[0], shares[1]) >= 0.3 * (shares[0] + shares[1]), (held, pushed, pulled)


def assert_sessions_take_part(cluster: Cluster, run: str, rows: int, share: float = 0.8) -> None:
    """Each worker's session in at least `share` of the steps."""
    steps = [d for d in audit.decisions(cluster, run) if d.kind == run_pb2.Decision.STEP]
    took_part = Counter(session for step in steps for session in {part.uid.session for part in step.parts})
    assert len(took_part) == len(cluster.workers), took_part
    assert len(steps) >= rows // STEP_ROWS
    assert all(count >= share * len(steps) for count in took_part.values()), (took_part, len(steps))


def test_spark_feeds_both_workers_from_both_executors(cluster: Cluster, spark: Any, tmp_path: Path) -> None:
    from pyspark.sql import functions as F

    features = 16
    model = export_mlp(tmp_path / "mlp.pt", features, width=WIDTH)
    columns = [F.rand(seed=i).cast("float") for i in range(features)]
    df = spark.range(SPARK_ROWS, numPartitions=2).select("id", F.array(*columns).alias("x"), (F.col("id") % 5).alias("y")).cache()
    df.mapInArrow(lambda pieces: pieces, df.schema).count()  # starts the Python workers of both executors, so that both tasks begin together
    with ExecutorsSeen(cluster) as seen, ballast.spark.connect(cluster.address) as connection:
        result = connection.train(
            df, model.path, features=["x"], label="y", id_col="id", run_id="spark", batch_rows=64, step_rows=STEP_ROWS, partitions=2, progress=False
        )
    assert result.rows_in == result.rows_trained == SPARK_ROWS, result
    assert len(seen.executors) == 2, seen.executors
    job = FeederJob(cluster.address, "spark", model, VectorRows(SPARK_ROWS, 2))
    assert_bytes_are_shared(cluster, job.show())
    assert_sessions_take_part(cluster, "spark", SPARK_ROWS)


def test_metrics_count_the_bytes_of_the_sockets(cluster: Cluster, tmp_path: Path) -> None:
    model = export_mlp(tmp_path / "mlp.pt", width=WIDTH)
    settings = options(batch_rows=64, step_rows=STEP_ROWS, codec="int8", reduction="mean")
    job = FeederJob(cluster.address, "wire", model, VectorRows(ROWS, 4), ballast.Adam(1e-3), settings)
    job.create()
    job.begin(1)
    counts = job.feed_all(1, [0, 1])  # both workers fetch the model, which no metric of the data plane counts
    before = [_wire(cluster, i) for i in range(2)]
    counts |= job.feed_all(1, [2, 3])
    # Not committed yet: the sessions and their sockets are still there.
    for index in range(2):
        wait_for(f"the metrics of server {index} to agree with its sockets", lambda i=index: _agree(_wire(cluster, i), before[i]), 10)  # type: ignore[misc]
    assert job.commit(1, counts).committed
    assert_bytes_are_shared(cluster, job.show())
    assert_sessions_take_part(cluster, "wire", ROWS, share=0.4)  # on a slow machine a feed may move while the other worker loads the model


def _wire(cluster: Cluster, index: int) -> dict[str, float]:
    server = cluster.servers[index]
    pids = {w.popen.pid for w in cluster.workers if w.popen is not None}
    kernel = sockets.bytes_at_port(int(server.address.rsplit(":", 1)[1]), pids)
    return {
        "received": server.metric("ballast_wire_received_bytes_total"),
        "sent": server.metric("ballast_wire_sent_bytes_total"),
        "kernel received": kernel.received,
        "kernel sent": kernel.sent,
    }


def _agree(after: dict[str, float], before: dict[str, float]) -> bool:
    """Within 2 % in both directions."""
    grown = {k: after[k] - before[k] for k in after}
    print(grown)
    return all(grown[k] > 1e6 and abs(grown[f"kernel {k}"] / grown[k] - 1) <= 0.02 for k in ("received", "sent"))


class ExecutorsSeen:
    """Looks on the process table, again and again, which Spark executors hold connections to the workers."""

    def __init__(self, cluster: Cluster) -> None:
        self.executors: set[int] = set()
        self._ports = {int(w.address.rsplit(":", 1)[1]) for w in cluster.workers}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> ExecutorsSeen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            for pid in sockets.pids_connected_to(self._ports):
                executor = _executor_above(pid)
                if executor is not None:
                    self.executors.add(executor)


def _executor_above(pid: int) -> int | None:
    """The executor JVM among the ancestors of a Python worker."""
    while pid > 1:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"CoarseGrainedExecutorBackend" in command:
                return pid
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])
        except FileNotFoundError:
            return None
    return None
