"""More than the cluster can do, and peers that are too slow: memory stays within the limits of the queues, and the others go on.

BALLAST_OVERLOAD_S is how long the overload lasts (default 4 s; a campaign takes 60 or more).
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ballast.channel import hello, open_channel
from ballast.model import ModelFile
from ballast.v1 import run_pb2, shard_pb2, shard_pb2_grpc, worker_pb2, worker_pb2_grpc
from tests.support import audit
from tests.support.cluster import Cluster, Process, wait_for
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.proxy import UP, Proxy, frame
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

DURATION_S = float(os.environ.get("BALLAST_OVERLOAD_S", "4"))
SLOTS = 1_000_000  # 4 MB of weights: a worker is slower than its feeders, and one encoding is more than an HTTP/2 window
FEED_BYTES = 8 << 20
QUEUE_BYTES = 16 << 20
READER_S = 2
MIB = 1 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_counter(tmp_path_factory.mktemp("model") / "counter.pt", SLOTS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    server_flags = ("--queue-bytes", str(QUEUE_BYTES), "--reader-timeout", str(READER_S))
    with Cluster(tmp_path_factory.mktemp("cluster"), servers=2, server_flags=server_flags, worker_flags=("--feed-bytes", str(FEED_BYTES))) as c:
        yield c


def make_job(cluster: Cluster, model: ModelFile, run: str, rows: int, partitions: int, address: str = "") -> FeederJob:
    settings = options(partitions=partitions, batch_rows=1024, step_rows=8192)
    job = FeederJob(address or cluster.address, run, model, CounterRows(rows, SLOTS, partitions), run_options=settings)
    job.create()
    return job


def assert_trained_once(cluster: Cluster, job: FeederJob, epochs: int) -> None:
    np.testing.assert_array_equal(audit.live_weights(cluster, job.run)["weight"], job.rows.expected(epochs))


def resident(process: Process) -> int:
    assert process.popen is not None
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert match
    return int(match[1]) << 10


class Sampler:
    """The most that each process held, and the most in each queue, while a `with` block ran."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self.most: dict[str, int] = {p.name: 0 for p in cluster.processes()}
        self.feed_bytes = self.push_bytes = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            for process in self._cluster.processes():
                self.most[process.name] = max(self.most[process.name], resident(process))
            self.feed_bytes = max([self.feed_bytes, *(w.metric("ballast_feed_queue_bytes") for w in self._cluster.workers)])
            self.push_bytes = max([self.push_bytes, *(s.metric("ballast_push_queue_bytes") for s in self._cluster.servers)])


def epochs_for(job: FeederJob, seconds: float, first: int = 1) -> tuple[int, float]:
    """Whole epochs, one after another, for at least so long. Returns the last one and rows a second."""
    start, epoch, rows = time.monotonic(), first, 0
    while True:
        report = job.run_epoch(epoch)
        assert report.committed and report.rows_trained == report.rows_in, report
        rows += report.rows_trained
        if time.monotonic() - start >= seconds:
            return epoch, rows / (time.monotonic() - start)
        epoch += 1


def test_ten_times_the_feeds(cluster: Cluster, model: ModelFile) -> None:
    """40 tasks at once where 4 keep the worker busy: they wait for credit, memory does not grow with them, and the work done does not shrink."""
    few = make_job(cluster, model, "few", 20_000, 4)
    few.run_epoch(1)  # warm
    epoch, peak = epochs_for(few, DURATION_S / 3, first=2)
    many = make_job(cluster, model, "many", 200_000, 40)
    many.begin(1)
    many.feed_all(1, [0, 1, 2, 3])  # brings in what a second run needs by itself
    before = {p.name: resident(p) for p in cluster.processes()}
    with Sampler(cluster) as seen:
        epochs, goodput = epochs_for(many, DURATION_S)
    print(f"goodput {goodput:,.0f} rows/s, {goodput / peak:.0%} of the peak of {peak:,.0f}; feeds held {seen.feed_bytes / MIB:.1f} MiB, "
          f"pushes {seen.push_bytes / MIB:.1f} MiB; resident {({n: (before[n] >> 20, m >> 20) for n, m in seen.most.items()})} MiB")  # fmt: skip
    assert seen.feed_bytes <= FEED_BYTES
    assert seen.push_bytes <= QUEUE_BYTES
    for name, most in seen.most.items():
        queue = FEED_BYTES if name.startswith("worker") else QUEUE_BYTES
        assert most <= 1.1 * (before[name] + queue), f"{name} grew from {before[name] >> 20} to {most >> 20} MiB"
    if DURATION_S >= 60:  # a few seconds on cores that others use say nothing
        assert goodput >= 0.9 * peak
    assert_trained_once(cluster, few, epoch)
    assert_trained_once(cluster, many, epochs)
    for job in (few, many):
        cluster.ctl("run", "rm", job.run, "--force")


def test_pull_reader_that_never_reads(cluster: Cluster, model: ModelFile) -> None:
    """It is cut off after --reader-timeout, and what it held on to is freed; the run trains meanwhile."""
    job = make_job(cluster, model, "unread", 40_000, 4)
    job.run_epoch(1)
    readers = [silent_reader(cluster.servers[0].address, job.run) for _ in range(8)]
    try:
        assert job.run_epoch(2).committed
        wait_for("the readers to be cut off", lambda: cluster.servers[0].metric("ballast_pull_slow_readers_total") >= len(readers), 15 * READER_S)
        assert_trained_once(cluster, job, 2)
    finally:
        for reader in readers:
            reader.close()
        cluster.ctl("run", "rm", job.run, "--force")


def silent_reader(address: str, run: str) -> socket.socket:
    """A Pull stream, spoken by hand, whose socket nobody reads: wants are sent, values are not taken."""
    host, _, port = address.rpartition(":")
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect((host, int(port)))
    want = shard_pb2.Want(run=run, number=1, min_version=1, codec=run_pb2.CODEC_FP32).SerializeToString()
    message = b"\0" + len(want).to_bytes(4, "big") + want
    headers = b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/ballast.v1.Shard/Pull"), (b":authority", b"x"),
                            (b"content-type", b"application/grpc"), (b"te", b"trailers"))
    )  # fmt: skip
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    reader.sendall(preface + frame(1, 4, 1, headers) + b"".join(frame(0, 0, 1, message) for _ in range(8)))
    return reader


def test_a_thousand_idle_connections(cluster: Cluster, model: ModelFile) -> None:
    """To every process: they cost little, and a run trains beside them."""
    job = make_job(cluster, model, "idle", 40_000, 4)
    job.run_epoch(1)
    before = {p.name: resident(p) for p in cluster.processes()}
    idle = []
    try:
        for process in cluster.processes():
            host, _, port = process.address.rpartition(":")
            for _ in range(1000):
                idle.append(socket.create_connection((host, int(port))))
                idle[-1].sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert job.run_epoch(2).committed
        after = {p.name: resident(p) for p in cluster.processes()}
        print({n: f"{(after[n] - before[n]) / 1000 / 1024:.0f} KiB a connection" for n in after})
        assert all(after[n] - before[n] < 100 * MIB for n in after), (before, after)
    finally:
        for connection in idle:
            connection.close()
    assert job.run_epoch(3).committed
    assert_trained_once(cluster, job, 3)
    cluster.ctl("run", "rm", job.run, "--force")


def test_feeder_that_sends_a_byte_a_second(cluster: Cluster, model: ModelFile) -> None:
    """It holds neither the step nor the other feeds up; its partition is trained when it comes to itself."""
    job = make_job(cluster, model, "trickle", 40_000, 4)
    job.begin(1)
    with Proxy(cluster.workers[0].address) as slow:
        channel = open_channel(slow.address)
        slow.bytes_per_s[UP] = 1.0
        call = worker_pb2_grpc.WorkerStub(channel).Feed(iter([worker_pb2.FeedUp(open=worker_pb2.FeedUp.Open(run=job.run, epoch=1, partition=0))]))
        try:
            wait_for("the slow feeder's connection", lambda: slow.connections > 0)
            others = job.feed_all(1, [1, 2, 3])
            assert all(counts.trained == counts.batches for counts in others.values())
            assert slow.connections > 0
        finally:
            call.cancel()
            channel.close()
    assert job.commit(1, {**others, 0: job.feed(1, 0)}).committed
    assert_trained_once(cluster, job, 1)
    cluster.ctl("run", "rm", job.run, "--force")


def test_rows_beyond_the_credit_are_refused(cluster: Cluster, model: ModelFile) -> None:
    """A task that does not wait for credit: its feed ends, the worker holds no more than the feed's quota."""
    job = make_job(cluster, model, "greedy", 40_000, 4)
    job.begin(1)
    columns = [worker_pb2.Column(name="slot", data=bytes(8 * 1024)), worker_pb2.Column(name="amount", data=bytes(4 * 1024))]
    welcomed = threading.Event()

    def messages() -> Iterator[worker_pb2.FeedUp]:
        yield worker_pb2.FeedUp(open=worker_pb2.FeedUp.Open(hello=hello(), run=job.run, epoch=9, partition=0, schema=job.model.description.schema))
        assert welcomed.wait(30)
        for seq in range(2000):
            yield worker_pb2.FeedUp(rows=worker_pb2.FeedUp.Rows(seq=seq, rows=1024, fingerprint=seq + 1, columns=columns))

    with open_channel(cluster.workers[0].address) as channel, Sampler(cluster) as seen:
        fault = None
        for down in worker_pb2_grpc.WorkerStub(channel).Feed(messages(), timeout=60):
            welcomed.set()
            if down.WhichOneof("kind") == "fault":
                fault = down.fault
    assert fault is not None
    assert "rows beyond the credit" in fault.message
    assert seen.feed_bytes <= FEED_BYTES
    cluster.ctl("run", "rm", job.run, "--force")
