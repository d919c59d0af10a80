"""What is sent faster than it is handled: a stream is read no further at its limit.

A peer's messages are given to gRPC one by one, as fast as the server takes them. How many it takes before it stops is what its queue may hold and
what HTTP/2 lets be under way, and does not grow with what the peer would like to send.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from ballast.channel import hello
from ballast.model import ModelFile
from ballast.v1 import run_pb2, shard_pb2, shard_pb2_grpc, worker_pb2, worker_pb2_grpc
from tests.support import audit
from tests.support.cluster import Cluster, wait_for
from tests.support.feeder import FeederJob, export_counter, options
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

RUN, SLOTS, ROWS, PARTITIONS = "limits", 500, 2000, 2
MIB = 1 << 20
UNDER_WAY = 16 * MIB  # of one stream, that gRPC's windows let be under way at most; they grow with use
FLOOD = 64 * MIB  # what the peer would like to send
PULL_WANTS = 64  # kWantsMax of server/data_plane/pull_stream.h
PUSH_REPLIES = 1024  # kRepliesMax of server/data_plane/push_stream.h
WORKER_RUNS = 1024  # kRunsMax of worker/worker.cc
FIXED_WINDOWS = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)]  # 64 KiB of answers that nobody reads, never more


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_counter(tmp_path_factory.mktemp("model") / "counter.pt", SLOTS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), servers=1, workers=1) as c:
        yield c


@pytest.fixture(scope="module")
def job(cluster: Cluster, model: ModelFile) -> FeederJob:
    job = FeederJob(cluster.address, RUN, model, CounterRows(ROWS, SLOTS, PARTITIONS), run_options=options(partitions=PARTITIONS))
    job.create()
    assert job.run_epoch(1).committed
    return job


class Flood:
    """A stream to which one message after another is sent; nobody reads its answers."""

    def __init__(self, call: Callable[[Iterator[Any]], Any], message: Any) -> None:
        self.sent = 0  # messages
        self._message = message
        self._most = FLOOD // (message.ByteSize() + 5)
        self._stop = threading.Event()
        self.call = call(self._generate())

    def _generate(self) -> Iterator[Any]:
        while not self._stop.is_set() and self.sent < self._most:
            yield self._message
            self.sent += 1
        self._stop.wait()

    def await_end(self, seconds: float = 60) -> int:
        """How many were taken when a second passes without another, or the stream is closed."""
        seen, since = -1, time.monotonic()

        def still() -> bool:
            nonlocal seen, since
            if self.sent != seen:
                seen, since = self.sent, time.monotonic()
            return time.monotonic() - since > 1.0 or not self.call.is_active()

        wait_for("the flood to end", still, seconds)
        return self.sent

    def close(self) -> None:
        self._stop.set()
        self.call.cancel()


@pytest.fixture
def flood() -> Iterator[Callable[..., Flood]]:
    opened: list[tuple[grpc.Channel, Flood]] = []

    def start(address: str, method: Callable[[grpc.Channel], Any], message: Any) -> Flood:
        channel = grpc.insecure_channel(address, options=FIXED_WINDOWS)
        opened.append((channel, Flood(method(channel), message)))
        return opened[-1][1]

    yield start
    for channel, one in opened:
        one.close()
        channel.close()


def assert_goes_on(cluster: Cluster, job: FeederJob) -> None:
    """The run beside the flood."""
    epoch = max(e.epoch for e in job.show().epochs) + 1
    assert job.run_epoch(epoch).committed
    np.testing.assert_array_equal(audit.live_weights(cluster, RUN)["weight"], job.rows.expected(epoch))  # type: ignore[attr-defined]


def test_wants_that_wait(cluster: Cluster, job: FeederJob, flood: Callable[..., Flood]) -> None:
    want = shard_pb2.Want(run=RUN, number=1, min_version=1 << 40, codec=run_pb2.CODEC_FP32)
    taken = flood(cluster.address, lambda channel: shard_pb2_grpc.ShardStub(channel).Pull, want)
    assert PULL_WANTS <= taken.await_end() <= PULL_WANTS + UNDER_WAY // (want.ByteSize() + 5)
    assert_goes_on(cluster, job)


def test_answers_that_nobody_reads(cluster: Cluster, job: FeederJob, flood: Callable[..., Flood]) -> None:
    """Each chunk is one, whole contribution of another generation: refused at once, with an answer."""
    chunk = shard_pb2.Chunk(run=RUN, session=1, uid=1, generation=99, last=True, payload=b"four")
    chunk.blocks.add(count=1, bytes=4)
    taken = flood(cluster.address, lambda channel: shard_pb2_grpc.ShardStub(channel).Push, chunk)
    assert PUSH_REPLIES <= taken.await_end() <= PUSH_REPLIES + UNDER_WAY // (chunk.ByteSize() + 5)
    assert_goes_on(cluster, job)


def test_runs_that_a_worker_has_feeds_of(cluster: Cluster, job: FeederJob) -> None:
    """Feeds of as many runs as it may have, of which nobody has heard: one more is refused, and when they are gone there is room again."""

    async def open_feeds() -> list[Any]:
        async with grpc.aio.insecure_channel(cluster.workers[0].address) as channel:
            stub: Any = worker_pb2_grpc.WorkerStub(channel)
            feeds = [stub.Feed() for _ in range(WORKER_RUNS + 1)]
            for n, feed in enumerate(feeds):
                await feed.write(worker_pb2.FeedUp(open=worker_pb2.FeedUp.Open(hello=hello(), run=f"unknown-{n}", epoch=1)))
            done, _ = await asyncio.wait([asyncio.ensure_future(feed.read()) for feed in feeds], timeout=60, return_when=asyncio.FIRST_COMPLETED)
            return [answer.result() for answer in done]

    answers = asyncio.run(open_feeds())
    assert 1 <= len(answers) <= 2  # the run beside them is one more
    assert all(a.fault.reason == "WORKER_UNAVAILABLE" and a.fault.retry and f"{WORKER_RUNS} runs" in a.fault.message for a in answers)
    assert_goes_on(cluster, job)
