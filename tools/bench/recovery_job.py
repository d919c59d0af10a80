"""tools/bench/recovery: one server, one run, kill -9, and the time until it serves again."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ballast.artifacts import put_artifact
from ballast.channel import Connection
from ballast.v1 import control_pb2, run_pb2, shard_pb2
from tests.support.cluster import Cluster, Process
from tests.support.raw_session import RawSession, batch

RUN = "recovery"
PATIENCE_S = 300.0


def spec(elements: int, model_sha256: str) -> Any:
    out = run_pb2.RunSpec(
        name=RUN, model_sha256=model_sha256, step_rows=1, batch_rows=1, partitions=1, linger_ms=60_000, schema="x:int32",
        push_codec=run_pb2.CODEC_INT8, pull_codec=run_pb2.CODEC_FP32, reduction=run_pb2.REDUCTION_SUM, lease_ms=600_000,
    )  # fmt: skip
    out.tensors.add(name="w", shape=[elements], dtype=run_pb2.F32, rule=run_pb2.OPT, source_dtype="float32", persistent=True)
    out.optimizer.kind = run_pb2.OptimizerSpec.ADAM
    out.optimizer.lr = 1e-3
    out.optimizer.beta1, out.optimizer.beta2, out.optimizer.eps = 0.9, 0.999, 1e-8
    return out


class DenseSession(RawSession):
    """Pushes whole models block by block; the same gradient every time."""

    def encoded(self, initial: bool) -> list[tuple[Any, int, bytes]]:
        out = []
        random = np.random.default_rng(1)
        for block in self.run.layout:
            if initial:
                codec, data = run_pb2.CODEC_FP32, random.normal(0, 0.02, block.count).astype("<f4").tobytes()
            else:
                scales = np.full(-(-block.count // 256), 1e-3, dtype="<f4").tobytes()
                codec, data = run_pb2.CODEC_INT8, scales + random.integers(-127, 128, block.count, dtype=np.int8).tobytes()
            out.append((block, codec, data))
        return out

    def push_all(self, uid: Any, blocks: list[tuple[Any, int, bytes]], address: str) -> None:
        for index, (block, codec, data) in enumerate(blocks):
            chunk = shard_pb2.Chunk(
                run=RUN, generation=self.run.generation, session=uid.session, uid=uid.counter, index=index, last=index + 1 == len(blocks), payload=data
            )
            chunk.blocks.add(
                tensor=block.tensor, first=block.first, count=block.count, codec=codec, bytes=len(data), checksum=xxhash.xxh3_64_intdigest(data)
            )
            self._push_stream(0, address).send(chunk)

    def train(self, trained: Any, blocks: list[tuple[Any, int, bytes]], address: str) -> int:
        """One contribution, decided. Returns its version."""
        grant = self.granted(trained)
        uid = self.new_uid()
        self.push_all(uid, blocks, address)
        self.submit(uid, [trained], grant.base_version, [self.receipt(0, PATIENCE_S)])
        return self.accepted(uid, PATIENCE_S)


def drop_from_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def log_seconds(server: Process) -> float:
    return server.metric("ballast_log_fsync_seconds_sum")


def prepare(cluster: Cluster, elements: int, steps: int) -> dict[str, float]:
    """A checkpoint of version 1 and `steps` logged steps behind it."""
    address = cluster.address
    with Connection(address) as connection:
        sha256 = put_artifact(connection, b"no model: nobody trains here")
        connection.call("CreateRun", spec(elements, sha256), patience_s=PATIENCE_S)
        connection.call("BeginEpoch", control_pb2.Epoch(run=RUN, epoch=1, partitions=1, batch_rows=1, schema="x:int32"), patience_s=PATIENCE_S)
    session = DenseSession(address, RUN, "bench")
    session.train(run_pb2.Batch(partition=0xFFFFFFFF), session.encoded(initial=True), address)
    with Connection(address) as connection:
        connection.call("Checkpoint", control_pb2.RunRef(run=RUN), timeout_s=PATIENCE_S, patience_s=PATIENCE_S)
    gradient = session.encoded(initial=False)
    before, start = log_seconds(cluster.servers[0]), time.monotonic()
    for seq in range(steps):
        session.train(batch(seq, 1), gradient, address)
    seconds = time.monotonic() - start
    session.drop()
    return {"step_s": seconds / steps, "log_s_per_step": (log_seconds(cluster.servers[0]) - before) / steps}


def recover(server: Process, folder: Path, warm: bool) -> dict[str, float]:
    server.kill()
    if not warm:
        drop_from_cache(folder)
    start = time.monotonic()
    server.start(wait=False)
    server.await_ready(PATIENCE_S)
    seconds = time.monotonic() - start
    pid = server.popen.pid if server.popen else 0
    ticks = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    return {"seconds": seconds, "cpu_s": (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=0.25, help="of fp32 weights; Adam's slots are twice as much again")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", action="store_true", help="leave the files in the page cache")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="recovery-", dir=arguments.folder))
    elements = int(arguments.gigabytes * 1e9 / 4)
    try:
        with Cluster(folder, servers=1, workers=0, server_flags=("--recovery-target=0",)) as cluster:
            result: dict[str, Any] = {"gigabytes": arguments.gigabytes, "steps": arguments.steps, **prepare(cluster, elements, arguments.steps)}
            print(f"{elements:,} weights; a step takes {result['step_s']:.2f} s here, of which its log's writes {result['log_s_per_step']:.3f} s")
            rounds = []
            for number in range(arguments.rounds):
                rounds.append(recover(cluster.servers[0], folder / "server-0", arguments.warm))
                print(f"round {number + 1}: {rounds[-1]['seconds']:.1f} s to serve, {rounds[-1]['cpu_s']:.1f} s of processor time", flush=True)
            result["rounds"] = rounds
            result["seconds_per_gigabyte"] = statistics.median(r["seconds"] for r in rounds) / arguments.gigabytes
            print(f"median: {result['seconds_per_gigabyte']:.1f} s for each GB of fp32 weights, {arguments.steps} steps replayed")
            if arguments.json:
                arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
