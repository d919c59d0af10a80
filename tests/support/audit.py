"""What tests read back from a cluster: weights, residuals, decisions. Checks that every test of exactly-once shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from ballast import arrays
from ballast.channel import Connection, open_channel
from ballast.v1 import control_pb2, run_pb2, worker_pb2_grpc
from tests.support.cluster import Cluster, patience

Floats = npt.NDArray[np.float32]


def live_weights(cluster: Cluster, run: str) -> dict[str, npt.NDArray[Any]]:
    """What the servers hold now, by Shard.Pull."""
    return arrays(f"{run}@live", cluster.address)


def exported_weights(cluster: Cluster, run: str, directory: Path) -> dict[str, npt.NDArray[Any]]:
    """The newest checkpoint, by `ballastctl ckpt export` and the safetensors package."""
    from safetensors.numpy import load_file

    cluster.ctl("ckpt", "export", run, "-o", str(directory), "--format", "safetensors")
    weights: dict[str, npt.NDArray[Any]] = {}
    for file in sorted(directory.glob("*.safetensors")):
        weights.update(load_file(file))
    return weights


def residual_sum(cluster: Cluster, run: str, tensor: str, elements: int) -> Floats:
    """Sum over the sessions of all live workers of what error feedback still holds back of `tensor`."""
    total: Floats = np.zeros(elements, dtype=np.float64)
    for worker in cluster.workers:
        with open_channel(worker.address) as channel:
            try:
                for piece in worker_pb2_grpc.WorkerStub(channel).Residuals(control_pb2.RunRef(run=run), timeout=patience(30)):
                    if piece.tensor == tensor:
                        values = np.frombuffer(piece.data, dtype="<f4")
                        total[piece.first : piece.first + len(values)] += values
            except grpc.RpcError as e:
                if e.code() != grpc.StatusCode.NOT_FOUND:  # this worker never had a session
                    raise
    return total


def decisions(cluster: Cluster, run: str) -> list[Any]:
    with Connection(cluster.address) as connection:
        return list(connection.stream("ListDecisions", control_pb2.DecisionRange(run=run)))


def sessions(cluster: Cluster, run: str) -> int:
    """How many sessions took part in the steps of the run (needs servers with --log-retain=all)."""
    return len({part.uid.session for d in decisions(cluster, run) if d.kind == run_pb2.Decision.STEP for part in d.parts})


def assert_each_batch_once(cluster: Cluster, run: str) -> None:
    """No batch is in two decisions that are not undone (needs servers with --log-retain=all)."""
    seen: dict[tuple[int, int, int], int] = {}
    for decision in decisions(cluster, run):
        if decision.kind == run_pb2.Decision.ROLLBACK:
            seen = {identity: version for identity, version in seen.items() if version <= decision.rollback_version}
        for part in decision.parts:
            for batch in part.batches:
                identity = (batch.epoch, batch.partition, batch.seq)
                assert identity not in seen, f"batch {identity} was trained twice; the second time by decision {decision.index}"
                seen[identity] = decision.version
