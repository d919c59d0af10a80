"""Pulling weights from two servers: dtypes, shared names, damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import xxhash

import ballast
from ballast import runs
from ballast.errors import BallastError, TaskFault, fault_in
from ballast.runs import parse_run
from ballast.v1 import control_pb2, control_pb2_grpc, run_pb2, shard_pb2, shard_pb2_grpc

WEIGHT = np.arange(6, dtype="<f4").reshape(2, 3)
SEEN = np.array(4, dtype="<i8")


def make_run() -> Any:
    run = run_pb2.Run(version=9, manifest_version=5, generation=1)
    run.spec.name = "r"
    run.spec.tensors.add(name="w", shape=[2, 3], dtype=run_pb2.F32, source_dtype="float16", aliases=["v"], persistent=True)
    run.spec.tensors.add(name="seen", shape=[], dtype=run_pb2.I64, source_dtype="bool", persistent=True)
    run.spec.tensors.add(name="hidden", shape=[1], dtype=run_pb2.F32, source_dtype="float32", persistent=False)
    for tensor, first, count, shard in ((0, 0, 4, 0), (0, 4, 2, 1), (1, 0, 1, 1), (2, 0, 1, 0)):
        run.layout.add(tensor=tensor, first=first, count=count, shard=shard)
    return run


class Server(control_pb2_grpc.ControlServicer, shard_pb2_grpc.ShardServicer):
    def __init__(self, index: int) -> None:
        self.index = index
        self.wants: list[Any] = []
        self.damage = ""
        self.live_versions = [9]
        self.addresses: list[str] = []
        self.calls = 0
        self.asked: Callable[[int], None] = lambda calls: None
        self.server = grpc.server(ThreadPoolExecutor(max_workers=8))
        control_pb2_grpc.add_ControlServicer_to_server(self, self.server)
        shard_pb2_grpc.add_ShardServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Cluster(self, request: Any, context: Any) -> Any:
        self.calls += 1
        self.asked(self.calls)
        return control_pb2.ClusterState(servers=[control_pb2.ServerInfo(index=i, address=a) for i, a in enumerate(self.addresses)])

    def ListRuns(self, request: Any, context: Any) -> Any:
        return control_pb2.RunList(runs=[make_run()])

    def Pull(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        for want in request_iterator:
            self.wants.append(want)
            version = want.manifest or (self.live_versions.pop(0) if len(self.live_versions) > 1 else self.live_versions[0])
            blocks = [b for b in make_run().layout if b.shard == self.index]
            for i, block in enumerate(blocks if self.damage != "missing" else blocks[:-1]):
                yield self._chunk(want, block, i, version, i == len(blocks) - 1)
                if self.damage == "stops":
                    self.damage = ""
                    context.abort(grpc.StatusCode.UNAVAILABLE, "stops")
            if self.damage == "missing":
                yield shard_pb2.Chunk(run="r", uid=want.number, version=version, last=True)

    def _chunk(self, want: Any, block: Any, index: int, version: int, last: bool) -> Any:
        values = [WEIGHT, SEEN, np.zeros(1, dtype="<f4")][block.tensor].reshape(-1)[block.first : block.first + block.count]
        data = values.tobytes()
        checksum = xxhash.xxh3_64_intdigest(data)
        if self.damage == "bits":
            data = bytes([data[0] ^ 1]) + data[1:]
        codec = run_pb2.CODEC_I64 if block.tensor == 1 else run_pb2.CODEC_FP32
        head = shard_pb2.BlockHead(tensor=block.tensor, first=block.first, count=block.count, codec=codec, bytes=len(data), checksum=checksum)
        return shard_pb2.Chunk(run="r", uid=want.number, version=version, index=index, last=last, blocks=[head], payload=data)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    both = [Server(0), Server(1)]
    both[0].addresses = [s.address for s in both]
    yield both
    for s in both:
        s.server.stop(0).wait()


def test_state_dict_has_the_modules_dtypes_and_every_name(servers: list[Server]) -> None:
    torch = pytest.importorskip("torch")
    state = ballast.state_dict("r", servers[0].address)
    assert list(state) == ["w", "v", "seen"]
    assert state["w"].dtype == torch.float16 and state["w"] is state["v"] and state["seen"].dtype == torch.bool
    np.testing.assert_array_equal(state["w"].float().numpy(), WEIGHT)
    assert [w.manifest for w in servers[1].wants] == [5]


def test_version_and_live_are_asked_for(servers: list[Server]) -> None:
    ballast.arrays("r@3", servers[0].address)
    values = ballast.arrays("r@live", servers[0].address)
    assert [(w.manifest, w.min_version) for w in servers[0].wants] == [(3, 9), (0, 9)]
    assert values["seen"].tolist() == 4 and values["seen"].shape == () and set(values) == {"w", "seen", "hidden"}


def test_live_weights_are_of_one_version(servers: list[Server]) -> None:
    servers[0].live_versions = [9, 10]
    servers[1].live_versions = [10]
    ballast.arrays("r@live", servers[0].address)
    assert len(servers[0].wants) == 2


@pytest.mark.parametrize(("damage", "reason"), [("bits", "BAD_CHECKSUM"), ("missing", "PULL_INCOMPLETE")])
def test_damage_is_not_believed(servers: list[Server], damage: str, reason: str) -> None:
    servers[1].damage = damage
    with pytest.raises(BallastError) as error:
        ballast.arrays("r", servers[0].address)
    assert error.value.reason == reason


def test_a_server_that_starts_again_is_waited_for(servers: list[Server]) -> None:
    """Also in the midst of the values: what came from the first try counts for nothing."""
    servers[0].addresses, all_there = [servers[0].address], servers[0].addresses
    servers[0].asked = lambda n: servers[0].addresses.__setitem__(slice(None), all_there[: 1 + (n >= 4)])
    servers[1].damage = "stops"
    values = ballast.arrays("r", servers[0].address)
    np.testing.assert_array_equal(values["w"], WEIGHT)
    assert len(servers[1].wants) == 2


def test_lost_server_is_named(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_PATIENCE_S", 0.5)
    servers[0].addresses = [servers[0].address]
    with pytest.raises(BallastError, match="server 1"):
        ballast.arrays("r", servers[0].address)


def test_run_names() -> None:
    assert parse_run("a.b-1@12") == ("a.b-1", "12") and parse_run("a") == ("a", "")
    for wrong in ("", "@3", "a@b"):
        with pytest.raises(BallastError):
            parse_run(wrong)


def test_errors_survive_the_way_through_spark() -> None:
    error = BallastError("SHAPE_MISMATCH", 'column "x" {odd} "quotes"', {"row_id": "}é"}, "FAILED_PRECONDITION")
    text = f"Job aborted due to stage failure:\n  {TaskFault(error)}\n\tat org.apache.spark"
    found = fault_in(text)
    assert found is not None and (found.reason, found.message, found.metadata, found.code) == (error.reason, error.message, error.metadata, error.code)
