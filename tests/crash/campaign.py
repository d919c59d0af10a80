"""Kills servers and workers while they train, again and again, and checks after each kill that nothing that was promised is gone.

    python -m tests.crash.campaign --kills N --seed S [--duration SECONDS] [--codec int8|fp32] [--checkpoints on|off]
                                    [--log-retain all|needed] [--dir DIR]

A killed server dies by kill -9 from outside, or by its own hand in one of four gaps (server/failpoint.h), so that each is hit for certain.
After the death of a server, from the log that it left:
  - the project's replay (`ballast-server --replay`) and the numpy replay (tests/replay) reach the same version with the same hash,
  - on server 0, no version that a feed was told of is missing,
and after its restart the recovered state has that version and hash, and training goes on. At the end the checkpoint of the live state
has, on every server, the hash of a replay of the whole log.

With `--log-retain needed` the log is cut as in everyday use, so nothing can be replayed from its beginning. What is checked then: the hash roots
in the log, by the servers themselves at each start; that server 0 recovers what a feed was told of; and every block of the last checkpoint.

Needs the -mutable test binaries for the gaps. Prints its seed and one line a kill; exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import ballast
from tests.replay import replay_log
from tests.support.cluster import Cluster, Process, binary, wait_for
from tests.support.feeder import FeederJob, TaskFailed, export_mlp, in_background, options
from tests.support.rows import VectorRows

GAPS = ("append-receipt", "submit-decision", "decision-apply", "apply-ack")
COORDINATOR_GAPS = ("submit-decision",)  # only server 0 passes them
SERVER_BINARY = "ballast-server-mutable"
RUN = "campaign"
KILL = "kill -9"
PARTITIONS = 4
HEAL_S = 60.0


@dataclass(frozen=True)
class Death:
    process: str
    how: str  # a gap, or "kill -9"
    acked: int  # highest version that a feed was told of
    recovered: Optional[int]  # version that a server had in its log; None for a worker
    heal_s: float  # restart to the next acknowledgement


@dataclass(frozen=True)
class State:
    version: int
    hash: str


def replay_by_server(data_dir: Path) -> State:
    done = subprocess.run([binary(SERVER_BINARY), "--replay", str(data_dir), "--print-hash", "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"--replay {data_dir}: {done.stderr}"
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = next(r for r in rows if r["run"] == RUN)
    return State(int(found["version"]), str(found["hash"]))


def replay_by_numpy(data_dir: Path) -> State:
    shard = replay_log.replay(_shard_dir(data_dir))
    return State(shard.version, f"{shard.root():016x}")


def hashes_by_numpy(data_dir: Path) -> dict[int, str]:
    """The hash of every version."""
    hashes: dict[int, str] = {}
    replay_log.replay(_shard_dir(data_dir), lambda shard: hashes.update({shard.version: f"{shard.root():016x}"}))
    return hashes


def _shard_dir(data_dir: Path) -> Path:
    [directory] = data_dir.glob(f"**/runs/{RUN}/shard-*")
    return directory


@dataclass(frozen=True)
class Healing:
    """A process that was started again and is not known to be well yet."""

    process: Process
    how: str
    acked: int
    left: Optional[State]  # in its log; None for a worker, and when the log is cut
    least: Optional[int]  # version that a server must recover; None for a worker
    started: float
    acks: int  # acknowledgements when it was started

    def recovered_as_left(self) -> bool:
        """A server logs what it recovered: the version and the hash that it left. False: it has not said so yet."""
        if self.least is None:
            return True
        recovered = _last_recovery(self.process)
        assert self.left is None or recovered in (None, self.left), f"{self.process.name} recovered {recovered}, its log holds {self.left}"
        assert recovered is None or recovered.version >= self.least, f"{self.process.name} recovered {recovered}, feeds were told of version {self.least}"
        return recovered is not None


class Campaign:
    def __init__(self, directory: Path, seed: int, codec: str, checkpoints: bool, report: Any = print, whole_log: bool = True) -> None:
        self.random = random.Random(seed)
        self.report = report
        self.deaths: list[Death] = []
        self.whole_log = whole_log
        flags = ("--log-retain", "all") if whole_log else ()
        self.cluster = Cluster(directory / "cluster", servers=2, workers=2, server_flags=flags, server_binary=SERVER_BINARY)
        self.model = export_mlp(directory / "mlp.pt")
        self.options = options(
            batch_rows=16, step_rows=64, partitions=PARTITIONS, codec=codec, reduction="mean", checkpoint_versions=25 if checkpoints else 0, lease_s=10.0
        )
        self.armed: dict[str, str] = {}  # by process: the gap in which it will die
        self.gaps: dict[str, list[str]] = {}  # by process: those that come after
        self.healing: dict[str, Healing] = {}
        self.stopping = False

    def run(self, kills: list[tuple[str, str]], deadline: Optional[float] = None) -> list[Death]:
        """`kills`: (process, "kill -9" or a gap), in order for each process. Ends early at `deadline` (time.monotonic())."""
        with self.cluster:
            self.job = FeederJob(
                self.cluster.address, RUN, self.model, VectorRows(4_000_000, PARTITIONS), ballast.Adam(1e-3), self.options, patience_s=HEAL_S
            )
            self.job.create()
            self.job.begin(1)
            feeds = [in_background(lambda p=p: self._feed(p)) for p in range(PARTITIONS)]  # type: ignore[misc]
            self.job.acks.await_count(8)
            self._kill_all(kills, deadline)
            self._stop(feeds)
            self._check_live_state()
        return self.deaths

    # ---- feeding

    def _feed(self, partition: int) -> None:
        def before(seq: int) -> None:
            if self.stopping:
                raise TaskFailed("enough")

        try:
            self.job.feed(1, partition, before=before)
        except TaskFailed:
            pass

    def _stop(self, feeds: list[Any]) -> None:
        self.stopping = True
        for feed in feeds:
            feed(HEAL_S)

    # ---- killing

    def _kill_all(self, kills: list[tuple[str, str]], deadline: Optional[float]) -> None:
        """Any number of processes may be dead or starting at a time: an armed gap strikes when it is passed."""
        self.gaps = {p.name: [how for name, how in kills if name == p.name and how in GAPS] for p in self.cluster.processes()}
        outside = [name for name, how in kills if how == KILL]
        while outside or self.armed or self.healing:
            for process in self.cluster.processes():
                if not process.alive():
                    self._restart(process, self.armed.pop(process.name, ""))
            self._watch_healing()
            if deadline is not None and time.monotonic() > deadline:
                outside.clear()
                self.armed.clear()
            elif outside and not self.healing and outside[0] not in self.armed:
                self._await_progress(self.random.randint(4, 40))
                self._kill(self._process(outside[0]), outside)
            time.sleep(0.005)

    def _kill(self, process: Process, outside: list[str]) -> None:
        if all(p.alive() for p in self.cluster.processes()):
            outside.remove(process.name)
            process.kill()
            self._restart(process, KILL)

    def _process(self, name: str) -> Process:
        return next(p for p in self.cluster.processes() if p.name == name)

    def _await_progress(self, acks: int) -> None:
        """Until so many more batches are acknowledged, or somebody died."""
        goal = self.job.acks.count() + acks
        wait_for(
            f"{acks} acknowledgements", lambda: self.job.acks.count() >= goal or not all(p.alive() for p in self.cluster.processes()), HEAL_S
        )

    def _restart(self, process: Process, how: str) -> None:
        """Checks what a dead process left, and starts it again."""
        assert process.popen is not None
        assert how and process.popen.wait() == -9, f"{process.name} ended with {process.popen.returncode}, planned was {how!r}:\n{process.log_tail()}"
        if how in GAPS:
            assert process.log_tail(500).rstrip().endswith(f"failpoint {how}"), process.log_tail(500)
        before = self.healing.pop(process.name, None)
        if before is not None:  # it died again before anybody was acknowledged
            self._healed(before)
        acked = self.job.acks.last_version
        is_server = process in self.cluster.servers
        left = self._check_log(process, acked) if is_server and self.whole_log else None
        least = None if not is_server else acked if process is self.cluster.servers[0] else 0
        if self.gaps[process.name]:
            self.armed[process.name] = self.gaps[process.name].pop(0)
        self._arm(process)
        self.healing[process.name] = Healing(process, how, acked, left, least, time.monotonic(), self.job.acks.count())
        process.start(wait=False)

    def _watch_healing(self) -> None:
        for healing in list(self.healing.values()):
            process = healing.process
            if not process.alive():
                continue
            if process.is_ready() and healing.recovered_as_left() and self.job.acks.count() > healing.acks:
                del self.healing[process.name]
                self._healed(healing)
            elif time.monotonic() - healing.started > HEAL_S:
                raise AssertionError(f"training does not go on after {healing.how} of {process.name}:\n{process.log_tail()}")

    def _healed(self, healing: Healing) -> None:
        recovered = healing.left or (_last_recovery(healing.process) if healing.least is not None else None)
        death = Death(healing.process.name, healing.how, healing.acked, recovered.version if recovered else None, time.monotonic() - healing.started)
        self.deaths.append(death)
        self.report(f"{len(self.deaths):4d}  {death.process:9s} {death.how:16s} acked {death.acked:6d}  recovered {death.recovered}  healed in {death.heal_s:.2f} s")

    def _arm(self, process: Process) -> None:
        gap = self.armed.get(process.name)
        process.environment = {"BALLAST_CRASH_AT": f"{gap}:{self.random.randint(3, 12)}"} if gap else {}

    # ---- checking

    def _check_log(self, process: Process, acked: int) -> State:
        data_dir = self.cluster.directory / process.name
        server, numpy = replay_by_server(data_dir), replay_by_numpy(data_dir)
        assert server == numpy, f"{process.name}: --replay says {server}, numpy says {numpy}"
        if process is self.cluster.servers[0]:
            assert numpy.version >= acked, f"feeds were told of version {acked}, the log of server 0 ends at {numpy.version}"
        return numpy

    def _check_live_state(self) -> None:
        """A checkpoint of the live state against replays. Batches that were on their way may still be decided: hashes are compared by version."""
        saved = self.cluster.ctl_json("ckpt", "save", RUN)
        self.report(f"final checkpoint: {saved}")
        manifest = self._manifest()
        assert manifest.version >= self.job.acks.last_version
        if not self.whole_log:
            self.report(self.cluster.ctl("ckpt", "verify", RUN).stdout.strip())
            return
        live = {s.shard: f"{s.digest:016x}" for s in manifest.shards}
        for index, server in enumerate(self.cluster.servers):
            data_dir = self.cluster.directory / server.name
            by_server = replay_by_server(data_dir)
            by_numpy = hashes_by_numpy(data_dir)  # later, so that it has every version that the other one saw
            assert by_numpy[by_server.version] == by_server.hash, (server.name, by_server)
            assert by_numpy[manifest.version] == live[index], (server.name, manifest.version, live[index])

    def _manifest(self) -> Any:
        from ballast.channel import Connection
        from ballast.v1 import control_pb2

        with Connection(self.cluster.address) as connection:
            return connection.call("ListManifests", control_pb2.RunRef(run=RUN)).manifests[0]


_RECOVERY = re.compile(rf"run recovered.*run={RUN}\b.*version=(\d+).*hash=([0-9a-f]{{16}})")


def _last_recovery(process: Process) -> Optional[State]:
    """From the log after the last start."""
    found = _RECOVERY.findall(process.log_since_start())
    return State(int(found[-1][0]), found[-1][1]) if found else None


def make_plan(kills: int, generator: random.Random) -> list[tuple[str, str]]:
    """Half of the kills in the gaps, evenly; a gap is armed when the server starts, so an outside kill comes before each server's first."""
    plan: list[tuple[str, str]] = []
    inside = 0
    while len(plan) < kills:
        gap = GAPS[inside % len(GAPS)]
        server = "server-0" if gap in COORDINATOR_GAPS or inside // len(GAPS) % 2 == 0 else "server-1"
        plan += [(server, "kill -9"), (server, gap)]
        inside += 1
        if inside % 3 == 0:
            plan.append((generator.choice(["worker-0", "worker-1"]), "kill -9"))
    return plan[:kills]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--duration", type=float, default=float("inf"), help="seconds after which no more kills are made")
    parser.add_argument("--codec", choices=["int8", "fp32"], default="int8")
    parser.add_argument("--checkpoints", choices=["on", "off"], default="on")
    parser.add_argument("--log-retain", choices=["all", "needed"], default="all")
    parser.add_argument("--dir", type=Path, default=None, help="folder for data and logs; default: a temporary one, removed at the end")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ballast-campaign-") as temporary:
        directory = arguments.dir or Path(temporary)
        checkpoints, whole_log = arguments.checkpoints == "on", arguments.log_retain == "all"
        campaign = Campaign(directory, arguments.seed, arguments.codec, checkpoints, lambda line: print(line, flush=True), whole_log)
        deaths = campaign.run(make_plan(arguments.kills, campaign.random), time.monotonic() + arguments.duration)
    print(f"{len(deaths)} kills, by kind {dict(Counter(d.how for d in deaths))}, slowest healed in {max(d.heal_s for d in deaths):.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
