"""What must hold whatever was killed: replays of the log, what readers saw, what was counted, how much memory was taken."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Optional

import grpc
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ballast.channel import open_channel
from ballast.v1 import run_pb2, shard_pb2, shard_pb2_grpc
from tests.replay import replay_log
from tests.support.cluster import Process, binary, memory, patience

SERVER_BINARY = "ballast-server-mutable"
STANDSTILL_S = 1.0  # each partition gives a batch when somebody is acknowledged, at least once in this time
RSS_MAX = memory(768 << 20)  # of one server; the runs here are tiny: what is left is gRPC, RocksDB and what malloc keeps


@dataclass(frozen=True)
class State:
    version: int
    hash: str


# ---- replays


def shard_dir(data_dir: Path, run: str) -> Path:
    [directory] = data_dir.glob(f"**/runs/{run}/shard-*")
    return directory


def replay_by_server(data_dir: Path, run: str) -> State:
    command = [binary(SERVER_BINARY), "--replay", str(shard_dir(data_dir, run)), "--print-hash", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(120))
    assert done.returncode == 0, f"--replay {data_dir}: {done.stderr}"
    [row] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return State(int(row["version"]), str(row["hash"]))


def replay_by_numpy(data_dir: Path, run: str) -> State:
    shard = replay_log.replay(shard_dir(data_dir, run))
    return State(shard.version, f"{shard.root():016x}")


def hashes_by_numpy(data_dir: Path, run: str) -> dict[int, str]:
    """The hash of every version."""
    hashes: dict[int, str] = {}
    replay_log.replay(shard_dir(data_dir, run), lambda shard: hashes.update({shard.version: f"{shard.root():016x}"}))
    return hashes


def last_recovery(process: Process, run: str) -> Optional[State]:
    """What a server said after its last start that it recovered; None: nothing yet."""
    found = re.findall(rf"run recovered.*run={run}\b.*version=(\d+).*hash=([0-9a-f]{{16}})", process.log_since_start())
    return State(int(found[-1][0]), found[-1][1]) if found else None


# ---- readers


class Reader:
    """Pulls one server's values again and again, over all its lives: a version that was seen never goes away, and is always the same bytes."""

    def __init__(self, server: Process, run: str, generation: int) -> None:
        self.version = 0
        self.pulls = 0
        self.error: Optional[str] = None
        self._server, self._run, self._generation = server, run, generation
        self._digests: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it, after one pull that must succeed."""
        self._stop.set()
        self._thread.join(30)
        self.check()
        self._pull()
        self.check()

    def check(self) -> None:
        assert self.error is None, f"reader of {self._server.name}: {self.error}"

    def _loop(self) -> None:
        while not self._stop.is_set() and self.error is None:
            try:
                self._pull()
            except grpc.RpcError:
                pass  # the server is dead or recovers
            self._stop.wait(0.05)

    def _pull(self) -> None:
        want = shard_pb2.Want(run=self._run, generation=self._generation, number=1, min_version=self.version, codec=run_pb2.CODEC_FP32)
        done = threading.Event()

        def wants() -> Iterator[Any]:
            yield want
            done.wait()

        digest = hashlib.sha256()
        with open_channel(self._server.address) as channel:
            stub: Any = shard_pb2_grpc.ShardStub(channel)
            call = stub.Pull(wants(), timeout=5.0)
            try:
                for chunk in call:
                    digest.update(chunk.payload)
                    if chunk.last:
                        self._saw(chunk.version, digest.hexdigest())
                        break
            finally:
                done.set()
                call.cancel()

    def _saw(self, version: int, digest: str) -> None:
        if version < self.version:
            self.error = f"version {version} after version {self.version}"
        elif self._digests.setdefault(version, digest) != digest:
            self.error = f"version {version} has other bytes than before"
        self.version = max(self.version, version)
        self.pulls += 1


# ---- rows


class CountedRows:
    """Rows of `source` (a RowSource) until `stop`; remembers what it gave, so that an epoch of unknown length can be counted exactly.

    `acked` says how many batches are done. While that stands still, rows come slowly: else a window of megabytes would fill, and logs that are
    replayed after every kill would grow for nothing.
    """

    def __init__(self, source: Any, piece: int) -> None:
        self._source, self._piece = source, piece
        self.acked: Callable[[], int] = lambda: 0
        self._lock = threading.Lock()
        self._stopping = self._again = False
        self._pieces: Counter[int] = Counter()  # given, by partition
        self.ids: list[npt.NDArray[np.int64]] = []

    @property
    def partitions(self) -> int:
        return int(self._source.partitions)

    @property
    def rows(self) -> int:
        with self._lock:
            return sum(len(ids) for ids in self.ids)

    def stop(self) -> None:
        self._stopping = True

    def again(self) -> None:
        """From now on a partition has the rows that it gave before."""
        self._again = True

    def partition(self, epoch: int, partition: int) -> Iterator[pa.RecordBatch]:
        if self._again:
            yield from islice(self._source.partition(epoch, partition, self._piece), self._pieces[partition])
            return
        for batch in self._source.partition(epoch, partition, self._piece):
            if self._stopping:
                return
            self._await_turn()
            with self._lock:
                self.ids.append(batch.column("id").to_numpy())
                self._pieces[partition] += 1
            yield batch

    def _await_turn(self) -> None:
        acked, start = self.acked(), time.monotonic()
        while not self._stopping and self.acked() == acked and time.monotonic() - start < STANDSTILL_S:
            time.sleep(0.02)

    def counts(self, slots: int) -> npt.NDArray[np.int64]:
        with self._lock:
            return np.bincount(np.concatenate(self.ids) % slots, minlength=slots)


@dataclass(frozen=True)
class SlotRows:
    """For models.Counter: row `id` adds 1 to slot id % slots; partition p has the ids p, p + partitions, ..."""

    rows: int
    slots: int
    partitions: int

    def partition(self, epoch: int, partition: int, piece: int) -> Iterator[pa.RecordBatch]:
        for start in range(partition, self.rows, self.partitions * piece):
            ids = np.arange(start, start + self.partitions * piece, self.partitions, dtype=np.int64)
            amounts = np.ones(len(ids), dtype=np.float32)
            yield pa.RecordBatch.from_arrays([pa.array(ids % self.slots), pa.array(amounts), pa.array(ids)], names=["c0", "c1", "id"])


# ---- memory


def rss_peak(process: Process) -> int:
    """Bytes; 0 when it is dead."""
    try:
        text = Path(f"/proc/{process.popen.pid}/status").read_text() if process.popen else ""
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) << 10 if found else 0
