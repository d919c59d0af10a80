"""One round of a crash campaign: a cluster with one set of settings, a list of kills, and the checks after each and at the end."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import ballast
from ballast.channel import Connection
from ballast.v1 import control_pb2
from tests.crash import oracles, points
from tests.crash.oracles import State
from tests.crash.side_runs import SideRuns
from tests.support import audit
from tests.support.cluster import Cluster, Process, wait_for
from tests.support.feeder import FeederJob, export_counter, export_mlp, in_background, options
from tests.support.rows import VectorRows

RUN = "campaign"
KILL = "kill -9"
PARTITIONS = 4
BATCH_ROWS = 16
SLOTS = 4096  # a contribution holds no slot twice: int8 codes of ones are exact
ARM_S = 1.5  # a campaign waits so long for an armed point to be passed; then the process is killed from outside
HEAL_S = 60.0
PROGRESS_S = 10.0  # from the moment that every process serves


@dataclass(frozen=True)
class Settings:
    codec: str = "int8"
    staleness: Optional[int] = 0
    model: str = "mlp"  # or "counter"
    checkpoints: bool = True
    whole_log: bool = True
    side_runs: bool = True
    durability: str = "log"

    @staticmethod
    def volatile(generator: random.Random) -> Settings:
        """Durability "checkpoint". A log that lacks the contributions cannot be replayed; the counter model shows each row."""
        return Settings(
            codec=generator.choice(["int8", "fp32"]), staleness=generator.choice([0, 1, None]), model="counter", whole_log=False, durability="checkpoint"
        )

    @staticmethod
    def random(generator: random.Random) -> Settings:
        checkpoints = generator.random() < 0.8
        return Settings(
            codec=generator.choice(["int8", "fp32"]),
            staleness=generator.choice([0, 1, None]),
            model=generator.choice(["counter", "mlp"]),
            checkpoints=checkpoints,
            whole_log=not checkpoints or generator.random() < 0.5,
        )


@dataclass(frozen=True)
class Kill:
    """Of one process: kill -9, or a plan for a point. Then plans for its next starts, each of which should end that life too."""

    process: str
    point: str = ""  # "": kill -9
    action: str = "kill"  # or "exit", "error"
    nth: int = 1
    nested: tuple[str, ...] = ()  # plans, "point=action@nth"
    also: str = ""  # a process that is killed (-9) while the first is dead


def random_kills(generator: random.Random, count: int, settings: Settings) -> list[Kill]:
    """Most deaths are at points. No point outside of starts comes twice before each came once."""
    table = [p for p in points.table() if settings.checkpoints or p.phase != "Checkpoint"]
    at_start = [p for p in table if p.phase == "Start"]
    if settings.durability == "checkpoint":  # then a start of a server is followed by a rollback
        at_start += 4 * [p for p in table if p.phase == "Rollback"]
    phases = ("Step", "Checkpoint", "Run", "Epoch") if settings.side_runs else ("Step", "Checkpoint")
    others = [p for p in table if p.phase in phases and not p.name.startswith("identity-")]
    generator.shuffle(others)
    kills: list[Kill] = []
    deaths = 0
    while deaths < count:
        server = generator.choice(["server-0", "server-1"])
        also = generator.choice(["server-0", "server-1", "worker-0", "worker-1"]) if generator.random() < 0.15 else ""
        again = generator.choices([p for p in at_start if server in p.servers], k=generator.choice([0, 0, 1, 1, 2]))
        nested = tuple(_plan(generator, p) for p in again)
        kind = generator.random()
        if kind < 0.12:
            kills.append(Kill(generator.choice(["worker-0", "worker-1"])))
        elif kind < 0.3:
            kills.append(Kill(server, nested=nested, also=also if also != server else ""))
        else:
            point = others[len(kills) % len(others)]
            server = server if server in point.servers else point.servers[0]
            nested = tuple(n for n in nested if server in _point(n.split("=")[0]).servers)
            nth = generator.randint(1, 12) if point.phase == "Step" else 1
            kills.append(Kill(server, point.name, _action(generator, point), nth, nested, also if also != server else ""))
        deaths += 1 + len(kills[-1].nested) + bool(kills[-1].also)
    return kills


def _point(name: str) -> points.Point:
    return next(p for p in points.table() if p.name == name)


def _action(generator: random.Random, point: points.Point) -> str:
    return generator.choice(["kill", "kill", "exit", "error"] if point.can_fail else ["kill", "kill", "exit"])


def _plan(generator: random.Random, point: points.Point) -> str:
    nth = generator.randint(1, 40) if point.name.startswith("record-replay") else 1
    return f"{point.name}={_action(generator, point)}@{nth}"


@dataclass
class Round:
    directory: Path
    random: random.Random
    settings: Settings
    report: Any = print
    arm_s: float = ARM_S
    kinds: Counter[str] = field(default_factory=Counter)
    heals: list[float] = field(default_factory=list)
    progress_max: float = 0.0
    rss_max: int = 0
    pulls: int = 0

    def __post_init__(self) -> None:
        self.cluster_dir = self.directory / "cluster"
        environment = {
            "BALLAST_FAILPOINTS_FILE": f"{self.cluster_dir}/{{name}}.points",
            "BALLAST_FAILPOINTS_COVERAGE": f"{self.cluster_dir}/{{name}}.coverage",
        }
        flags = ("--log-retain", "all") if self.settings.whole_log else ()
        self.cluster = Cluster(
            self.cluster_dir, servers=2, workers=2, server_flags=flags,
            server_binary=oracles.SERVER_BINARY, environment=environment, starter=self._first_start,
        )  # fmt: skip
        counter = self.settings.model == "counter"
        source: Any = oracles.SlotRows(4_000_000, SLOTS, PARTITIONS) if counter else VectorRows(4_000_000, PARTITIONS)
        self.rows = oracles.CountedRows(source, BATCH_ROWS)
        self.model = export_counter(self.directory / "model.pt", SLOTS) if counter else export_mlp(self.directory / "model.pt")
        self.optimizer = ballast.SGD(lr=1.0) if counter else ballast.Adam(1e-3)
        self.options = options(
            batch_rows=BATCH_ROWS, step_rows=64, partitions=PARTITIONS, codec=self.settings.codec, reduction="sum" if counter else "mean",
            checkpoint_versions=8 if self.settings.checkpoints else 0, staleness_max=self.settings.staleness, lease_s=5.0,
            durability=self.settings.durability,
        )  # fmt: skip

    def run(self, kills: list[Kill]) -> None:
        with self.cluster:
            self.job = FeederJob(self.cluster.address, RUN, self.model, self.rows, self.optimizer, self.options, patience_s=HEAL_S)
            self.rows.acked = self.job.acks.count
            self.job.create()
            self.job.begin(1)
            feeding = in_background(lambda: self.job.feed_all(1))
            self.job.acks.await_count(4)
            generation = self.job.show().generation
            self.readers = [oracles.Reader(server, RUN, generation) for server in self.cluster.servers]
            self.side_runs = SideRuns(self.cluster.address, self.model, self.optimizer, self.options) if self.settings.side_runs else None
            try:
                for kill in kills:
                    self._kill(kill)
                self._finish(feeding)
            finally:
                self.rows.stop()
                if self.side_runs is not None:
                    self.side_runs.stop()

    def coverage(self) -> points.Coverage:
        return points.Coverage.read(sorted(self.cluster_dir.glob("*.coverage")))

    def figures(self) -> dict[str, Any]:
        return dict(
            kinds=dict(self.kinds), heals=[round(h, 2) for h in self.heals], progress_max=round(self.progress_max, 2), rss_max=self.rss_max,
            rows=self.rows.rows, pulls=self.pulls,
        )  # fmt: skip

    # ---- killing

    def _first_start(self, process: Process) -> None:
        """The first life of a server on an empty directory is cut short once, at any point of its start."""
        if process.name.startswith("server"):
            early = ("dir-", "identity-", "file-", "incarnation-", "store-", "listen-")
            plan = _plan(self.random, self.random.choice([p for p in points.table() if p.name.startswith(early)]))
            process.start(wait=False, environment={"BALLAST_FAILPOINTS": plan})
            if self._await_start(process):
                return
            self._assert_planned(process, plan)
        process.start()

    def _kill(self, kill: Kill) -> None:
        self._await_progress(self.random.randint(2, 12))
        process = self._process(kill.process)
        others = [self._process(kill.also)] if kill.also else []
        start, how = time.monotonic(), self._strike(process, kill)
        for other in others:
            other.kill()
            self._count(KILL)
        acked = self.job.acks.last_version
        for other in others:
            if other in self.cluster.servers:
                self._check_log(other, acked)
            other.start(wait=False)
        for plan in (*kill.nested, ""):
            left = self._check_log(process, acked)
            process.start(wait=False, environment={"BALLAST_FAILPOINTS": plan} if plan else None)
            if plan and not self._await_start(process):
                self._assert_planned(process, plan)
                continue
            if plan:  # not passed by this start: it lives, and may still come by later
                process.kill()
                self._count(KILL)
        self._await_healing(process, others, left, acked)
        self.heals.append(time.monotonic() - start)
        more = " ".join((*kill.nested, kill.also))
        self.report(f"{sum(self.kinds.values()):5d}  {process.name:9s} {how:34s} {more:60s} acked {acked:5d}  healed in {self.heals[-1]:.2f} s")

    def _strike(self, process: Process, kill: Kill) -> str:
        """Ends the process as planned. Returns how it went."""
        if kill.point:
            plan = f"{kill.point}={kill.action}@{kill.nth}"
            self._control(process).write_text(plan)
            try:
                wait_for(plan, lambda: not process.alive(), self.arm_s)
            except TimeoutError:
                pass
            if not process.alive():
                self._control(process).unlink()  # else it would replace the plans of the next start
                self._assert_planned(process, plan)
                return plan
        process.kill()
        self._control(process).unlink(missing_ok=True)
        self._count(KILL)
        return f"{KILL} ({kill.point} not passed)" if kill.point else KILL

    def _await_start(self, process: Process) -> bool:
        """Whether the process serves; False when it ended first."""
        wait_for(f"{process.name} to serve or to end", lambda: not process.alive() or process.is_ready(), HEAL_S)
        return process.alive()

    def _assert_planned(self, process: Process, plan: str) -> None:
        """A process that is dead ended by its plan and by nothing else."""
        assert process.popen is not None
        name, action = plan.split("@")[0].split("=")
        status = process.popen.wait(30)
        assert status == -9 if action == "kill" else status > 0, f"{process.name} ended with {status}, planned was {plan}:\n{process.log_tail()}"
        assert f"failpoint {name}" in process.log_since_start(), f"{process.name} ended with {status} without {plan}:\n{process.log_tail()}"
        self._count(action)

    def _count(self, kind: str) -> None:
        self.kinds[kind] += 1

    def _control(self, process: Process) -> Path:
        return self.cluster_dir / f"{process.name}.points"

    def _process(self, name: str) -> Process:
        return next(p for p in self.cluster.processes() if p.name == name)

    def _await_progress(self, acks: int) -> None:
        goal = self.job.acks.count() + acks
        wait_for(f"{acks} acknowledgements", lambda: self.job.acks.count() >= goal, HEAL_S)

    def _await_healing(self, process: Process, others: list[Process], left: Optional[State], acked: int) -> None:
        """All serve; the killed server recovered what it left; somebody is acknowledged."""
        for p in self.cluster.processes():
            p.await_ready(HEAL_S)
        ready, acks = time.monotonic(), self.job.acks.count()
        if process in self.cluster.servers:
            recovered = wait_for(f"{process.name} to recover", lambda: oracles.last_recovery(process, RUN), HEAL_S)
            assert recovered is not None
            assert left is None or recovered == left, f"{process.name} recovered {recovered}, its log held {left}"
            assert process is not self.cluster.servers[0] or recovered.version >= acked, f"recovered {recovered}, feeds were told of version {acked}"
        wait_for(f"an acknowledgement after the death of {process.name}", lambda: self.job.acks.count() > acks, HEAL_S)
        progress = time.monotonic() - ready
        self.progress_max = max(self.progress_max, progress)
        assert progress <= PROGRESS_S, f"{progress:.1f} s from all serving to the next acknowledgement"
        for reader in self.readers:
            reader.check()
        for server in self.cluster.servers:
            self.rss_max = max(self.rss_max, oracles.rss_peak(server))
        assert self.rss_max <= oracles.RSS_MAX, f"a server took {self.rss_max >> 20} MiB"

    # ---- checking

    def _check_log(self, process: Process, acked: int) -> Optional[State]:
        """What the log of a dead server ends in; None for a worker, and for a log that is cut."""
        if process not in self.cluster.servers or not self.settings.whole_log:
            return None
        data_dir = self.cluster_dir / process.name
        server, numpy = oracles.replay_by_server(data_dir, RUN), oracles.replay_by_numpy(data_dir, RUN)
        assert server == numpy, f"{process.name}: --replay says {server}, numpy says {numpy}"
        if process is self.cluster.servers[0]:
            assert numpy.version >= acked, f"feeds were told of version {acked}, the log of server 0 ends at {numpy.version}"
        return numpy

    def _finish(self, feeding: Any) -> None:
        """Nothing is killed any more: every row that was given is counted once, and the state is that of the log."""
        self.rows.stop()
        if self.side_runs is not None:
            self.side_runs.finish(self.cluster_dir, [server.name for server in self.cluster.servers], RUN)
        report = self.job.commit(1, feeding(HEAL_S))
        if self.settings.durability == "checkpoint":
            assert report.committed or report.missing, report
            self.rows.again()
            while not report.committed:
                report = self.job.commit(1, self.job.feed_all(1))
        given = self.rows.rows
        assert report.committed and report.rows_in == report.rows_trained == given and not report.rows_skipped, f"{given} rows were given: {report}"
        if self.settings.model == "counter":
            weights = audit.live_weights(self.cluster, RUN)["weight"]
            assert (weights == self.rows.counts(SLOTS)).all(), "a row was lost or trained twice"
        for reader in self.readers:
            reader.close()
            self.pulls += reader.pulls
        self.cluster.ctl("ckpt", "save", RUN)
        if not self.settings.whole_log:
            self.cluster.ctl("ckpt", "verify", RUN)
            return
        audit.assert_each_batch_once(self.cluster, RUN)
        self._check_live_state()

    def _check_live_state(self) -> None:
        with Connection(self.cluster.address) as connection:
            manifest = connection.call("ListManifests", control_pb2.RunRef(run=RUN)).manifests[0]
        assert manifest.version >= self.job.acks.last_version
        for shard, server in zip(sorted(manifest.shards, key=lambda s: s.shard), self.cluster.servers):
            live, data_dir = f"{shard.digest:016x}", self.cluster_dir / server.name
            by_server, by_numpy = oracles.replay_by_server(data_dir, RUN), oracles.hashes_by_numpy(data_dir, RUN)
            assert by_numpy[by_server.version] == by_server.hash, (server.name, by_server)
            assert by_numpy[manifest.version] == live, (server.name, manifest.version, live)
