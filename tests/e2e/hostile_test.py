"""Bytes that no honest peer sends, to a live server and a live worker: each call ends with a status that says why, the processes stay, their
memory does not grow, and a run trains as if nothing had been."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ballast.channel import hello, open_channel
from ballast.v1 import control_pb2, run_pb2, shard_pb2, worker_pb2
from tests.support.audit import live_weights
from tests.support.cluster import Cluster, Process, memory, patience
from tests.support.feeder import FeederJob, export_counter, options
from tests.support.rows import CounterRows

pytestmark = [pytest.mark.e2e]

SEED = 20260725
NAMES = ("../../etc/passwd", "a/b", "a\0b", "r\u00fcn\u202e\U0001f4a5", "x" * 5000, "", "..")
GROWTH_MAX = memory(64 << 20)
CONTROL, SHARD, WORKER = "/ballast.v1.Control/", "/ballast.v1.Shard/", "/ballast.v1.Worker/"
INFER = "/inference.GRPCInferenceService/ModelInfer"
UNARY = ("CreateRun", "ListRuns", "StopRun", "DeleteRun", "BeginEpoch", "OpenFeed", "CommitEpoch", "Checkpoint", "ListManifests", "Cluster")


def resident(process: Process) -> int:
    assert process.popen is not None
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


class Hostile:
    """Raw bytes over one channel. Every call is over within its time limit, or it is a finding."""

    def __init__(self, address: str) -> None:
        self.channel = open_channel(address)
        self.answers: dict[str, int] = {}

    def unary(self, method: str, data: bytes) -> grpc.RpcError | None:
        try:
            self.channel.unary_unary(method)(data, timeout=patience(10))
        except grpc.RpcError as e:
            return self.refused(method, e)
        return None

    def stream(self, method: str, messages: Iterable[bytes]) -> grpc.RpcError | None:
        try:
            list(self.channel.stream_stream(method)(iter(messages), timeout=patience(10)))
        except grpc.RpcError as e:
            return self.refused(method, e)
        return None

    def refused(self, method: str, error: Any) -> grpc.RpcError:
        code = error.code()
        self.answers[code.name] = self.answers.get(code.name, 0) + 1
        assert code not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE), f"{method}: {code} {error.details()}"
        # What gRPC itself cannot decode it answers in its own way, without a word.
        assert error.details() or code == grpc.StatusCode.UNIMPLEMENTED, f"{method}: {code} without a reason"
        return error

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("hostile") / "cluster", 1, 1) as running:
        yield running


@pytest.fixture(autouse=True)
def alive_and_small(cluster: Cluster) -> Iterator[None]:
    before = {p.name: resident(p) for p in cluster.processes()}
    yield
    for process in cluster.processes():
        assert process.alive(), f"{process.name} ended:\n{process.log_tail()}"
        grown = resident(process) - before[process.name]
        assert grown < GROWTH_MAX, f"{process.name} grew by {grown >> 20} MiB"


def chunk(**changes: Any) -> shard_pb2.Chunk:
    message = shard_pb2.Chunk(run="no-such-run", generation=1, session=1 << 32, uid=1, last=True, payload=b"\0" * 16)
    message.blocks.add(tensor=0, count=4, codec=run_pb2.CODEC_FP32, bytes=16)
    for field, value in changes.items():
        setattr(message, field, value)
    return message


def test_random_bytes_to_every_method(cluster: Cluster) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)

    def noise() -> bytes:
        return rng.randbytes(rng.choice((0, 1, 7, 100, 5000)))

    with Hostile(cluster.address) as server, Hostile(cluster.workers[0].address) as worker:
        for _ in range(6):
            for method in UNARY:
                server.unary(CONTROL + method, noise())
            for method in ("PutArtifact", "GetArtifact", "ListDecisions", "Attach", "Work", "Follow"):
                server.stream(CONTROL + method, [noise() for _ in range(3)])
            for method in ("Push", "Pull"):
                server.stream(SHARD + method, [noise() for _ in range(3)])
            worker.stream(WORKER + "Feed", [noise() for _ in range(3)])
            worker.stream(WORKER + "Residuals", [noise()])
            worker.unary(INFER, noise())
    assert sum(server.answers.values()) > 40


def test_chunks_that_are_cut_or_claim_giant_lengths(cluster: Cluster) -> None:
    good = chunk().SerializeToString()
    head = good[: good.rindex(b"\x7a\x10")]
    cases = [good[:n] for n in range(1, len(good), 3)]
    cases += [head + b"\x7a" + varint(size) for size in (1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)]
    cases += [b"\x0a" + varint(1 << 40), b"\x42" + varint((1 << 64) - 1), b"\xff" * 64, good + b"x"]
    with Hostile(cluster.address) as server:
        for data in cases:
            error = server.stream(SHARD + "Push", [data])
            assert error is not None and error.code() == grpc.StatusCode.INVALID_ARGUMENT, data  # type: ignore[attr-defined]


def test_messages_over_the_limits(cluster: Cluster) -> None:
    with Hostile(cluster.address) as server, Hostile(cluster.workers[0].address) as worker:
        big = b"\x0a" + varint(40 << 20) + bytes(40 << 20)
        for error in (server.unary(CONTROL + "CreateRun", big), server.stream(SHARD + "Push", [big]), worker.stream(WORKER + "Feed", [big])):
            assert error is not None and error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error  # type: ignore[attr-defined]


@pytest.mark.parametrize("compression", (grpc.Compression.Gzip, grpc.Compression.Deflate), ids=("gzip", "deflate"))
def test_compressed_messages_are_refused(cluster: Cluster, compression: grpc.Compression) -> None:
    """128 MiB in 128 KiB: gRPC inflates a message before it looks at its size."""
    bomb = b"\x0a" + varint(128 << 20) + bytes(128 << 20)
    calls = {
        cluster.address: (CONTROL + "ListRuns", SHARD + "Push"),
        cluster.workers[0].address: (WORKER + "Feed", INFER),
    }
    for address, methods in calls.items():
        # Not open_channel: that one limits what this side sends.
        with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
            for method in methods:
                with pytest.raises(grpc.RpcError) as refused:
                    list(channel.stream_stream(method)(iter([bomb]), timeout=patience(60), compression=compression))
                assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED, refused.value
                assert "is disabled" in refused.value.details(), method


def test_wrong_protocol_version_names_both(cluster: Cluster) -> None:
    other = hello()
    other.protocol = 99
    with Hostile(cluster.address) as server:
        opens = {
            "Attach": control_pb2.WorkerUp(hello=other, name="w", address="127.0.0.1:1"),
            "Work": control_pb2.WorkUp(open=control_pb2.WorkUp.Open(hello=other, run="r", worker="w")),
            "Follow": control_pb2.ShardUp(open=control_pb2.ShardUp.Open(hello=other, index=1)),
        }
        for method, message in opens.items():
            error = server.stream(CONTROL + method, [message.SerializeToString()])
            assert error is not None and "99" in error.details(), method  # type: ignore[attr-defined]
    with Hostile(cluster.workers[0].address) as worker:
        first = worker_pb2.FeedUp(open=worker_pb2.FeedUp.Open(hello=other, run="r"))
        answers = [worker_pb2.FeedDown.FromString(a) for a in worker.channel.stream_stream(WORKER + "Feed")(iter([first.SerializeToString()]), timeout=patience(10))]
    assert "99" in answers[-1].fault.message


@pytest.mark.parametrize("name", NAMES, ids=("path", "slash", "nul", "unicode", "long", "empty", "dots"))
def test_run_names(cluster: Cluster, name: str) -> None:
    with Hostile(cluster.address) as server:
        spec = run_pb2.RunSpec(name=name, step_rows=1, batch_rows=1)
        spec.tensors.add(name=name, shape=[(1 << 62), (1 << 62)], dtype=run_pb2.F32, rule=run_pb2.OPT)
        for method, message in {
            "CreateRun": spec,
            "DeleteRun": control_pb2.RunRef(run=name),
            "BeginEpoch": control_pb2.Epoch(run=name, epoch=1, partitions=0xFFFFFFFF),
            "OpenFeed": control_pb2.FeedRef(run=name, epoch=1),
            "ListManifests": control_pb2.RunRef(run=name),
        }.items():
            error = server.unary(CONTROL + method, message.SerializeToString())
            assert error is not None and len(error.details()) < 8192, method  # type: ignore[attr-defined]
        opened = control_pb2.WorkUp(open=control_pb2.WorkUp.Open(hello=hello(), run=name, worker="w"))
        assert server.stream(CONTROL + "Work", [opened.SerializeToString()]) is not None
    assert not [f for f in Path(cluster.directory, "server-0").rglob("*") if "passwd" in f.name]


@pytest.mark.parametrize("exponent", (38, 42))
def test_run_larger_than_any_memory(cluster: Cluster, exponent: int) -> None:
    """Its layout alone took the server's memory before anybody asked whether the weights would fit: 2^42 elements ended the process."""
    model = control_pb2.Piece(sha256=hashlib.sha256(b"model").hexdigest(), total_bytes=5, data=b"model")
    with Hostile(cluster.address) as server:
        server.channel.stream_unary(CONTROL + "PutArtifact")(iter([model.SerializeToString()]), timeout=patience(10))
        spec = run_pb2.RunSpec(name="giant", model_sha256=model.sha256, step_rows=1, batch_rows=1, schema="x:int32", partitions=1)
        spec.reduction = run_pb2.REDUCTION_SUM
        spec.tensors.add(name="w", shape=[1 << exponent], dtype=run_pb2.F32, rule=run_pb2.OPT, source_dtype="float32", persistent=True)
        spec.optimizer.kind = run_pb2.OptimizerSpec.SGD
        spec.optimizer.lr = 1
        spec.optimizer.groups.add(lr_scale=1)
        error = server.unary(CONTROL + "CreateRun", spec.SerializeToString())
        assert error is not None and error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error  # type: ignore[attr-defined]
        assert "memory" in error.details()  # type: ignore[attr-defined]


def test_a_refusal_fits_the_headers_that_a_client_takes(cluster: Cluster) -> None:
    """It quoted a name of any length twice: the client learned only that headers were too large, and lost its other calls."""
    with Hostile(cluster.address) as server:
        ref = control_pb2.ArtifactRef(sha256="x" * 3000)
        error = server.stream(CONTROL + "GetArtifact", [ref.SerializeToString()])
        assert error is not None and "metadata size" not in error.details(), error  # type: ignore[attr-defined]
        assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT), error  # type: ignore[attr-defined]


def test_scoring_request_with_giant_shape_and_name(cluster: Cluster) -> None:
    def field(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    with Hostile(cluster.workers[0].address) as worker:
        for name in (b"no-such-run", b"../x", b"n" * 100000):
            tensor = field(1, b"x") + field(2, b"FP32") + field(3, struct.pack("<B", 0x7F) + varint((1 << 64) - 1))
            error = worker.unary(INFER, field(1, name) + field(5, tensor))
            assert error is not None


def test_a_run_trains_after_all_that(cluster: Cluster, tmp_path: Path) -> None:
    rows = CounterRows(rows=256, slots=16, partitions=2)
    job = FeederJob(cluster.address, "honest", export_counter(tmp_path / "counter.pt", 16), rows, run_options=options(partitions=2))
    job.create()
    report = job.run_epoch(1)
    assert report.committed and report.rows_trained == 256
    assert np.array_equal(live_weights(cluster, "honest")["weight"], rows.expected())
