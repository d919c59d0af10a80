"""One round of a crash campaign: a cluster with one set of settings, a list of kills, and the checks after each and at the end."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import ballast
from ballast.channel import Connection
from ballast.errors import BallastError
from ballast.runs import get_run
from ballast.v1 import control_pb2
from tests.crash import oracles, points
from tests.crash.feedings import PARTITIONS, Feeding, SparkFeeding, ThreadFeeding, await_progress
from tests.crash.kills import CUTS, MALLOC, Kill, Settings, plan_of
from tests.crash.oracles import State
from tests.crash.side_runs import SideRuns
from tests.support import audit
from tests.support.cluster import SANITIZED, Cluster, Process, patience, wait_for
from tests.support.compiled import failing_malloc
from tests.support.feeder import export_counter, export_mlp, in_background, options
from tests.support.rows import CounterRows, VectorRows

RUN = "campaign"
KILL = "kill -9"
BATCH_ROWS = 16
SLOTS = 4096  # a contribution holds no slot twice: int8 codes of ones are exact
ARM_S = 1.5  # a campaign waits so long for an armed point to be passed; then the process is killed from outside
SELDOM_S = 6.0  # the same for points that are passed seldom
SELDOM = ("root-", "epoch-drop", *CUTS)
HEAL_S = 60.0
FIRST_S = 180.0  # Spark takes its time to start
PROGRESS_S = patience(10)  # from the moment that every process serves
# What a rollback may be answered while servers die: it cannot be now, or that checkpoint went away.
NO_ROLLBACK = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "NOT_FOUND", "CANCELLED")


def _possible(plan: str) -> str:
    """The plan, or another death during a start: a sanitizer's malloc cannot be another library's."""
    return "listen-done=kill" if SANITIZED and plan.startswith(MALLOC) else plan


@dataclass
class Round:
    directory: Path
    random: random.Random
    settings: Settings
    report: Any = print
    arm_s: float = ARM_S
    spark: Any = None  # a SparkSession, where the settings want one
    epochs: int = 1  # of a Spark's run
    kinds: Counter[str] = field(default_factory=Counter)
    heals: list[float] = field(default_factory=list)
    progress_max: float = 0.0
    rss_max: int = 0
    pulls: int = 0
    rows: int = 0
    rollbacks: int = 0  # that took effect on the run that is fed
    asked: Optional[Callable[[float], Any]] = None  # a rollback that is under way
    failure: str = ""
    covered: points.Coverage = field(default_factory=lambda: points.Coverage(Counter(), Counter()))

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
        self.model = export_counter(self.directory / "model.pt", SLOTS) if counter else export_mlp(self.directory / "model.pt")
        self.optimizer = ballast.SGD(lr=1.0) if counter else ballast.Adam(1e-3)
        self.options = options(
            batch_rows=BATCH_ROWS, step_rows=64, partitions=PARTITIONS, codec=self.settings.codec, reduction="sum" if counter else "mean",
            checkpoint_versions=8 if self.settings.checkpoints else 0, staleness_max=self.settings.staleness, lease_s=5.0,
            durability=self.settings.durability, epochs=self.epochs,
        )  # fmt: skip

    def _make_feeding(self) -> Feeding:
        slots = SLOTS if self.settings.model == "counter" else 0
        if self.settings.spark:
            return SparkFeeding(self.spark, self.cluster, RUN, self.model, slots, self.options, HEAL_S)
        return ThreadFeeding(self.cluster, RUN, self.model, slots, self.optimizer, self.options, HEAL_S)

    def _make_side_runs(self) -> SideRuns:
        row: Any = CounterRows(1, 1, 1) if self.settings.model == "counter" else VectorRows(1, 1)
        return SideRuns(self.cluster.address, self.model, row, self.optimizer, self.options, self.settings.rollbacks)

    def run(self, kills: list[Kill]) -> None:
        with self.cluster:
            self.feeding = self._make_feeding()
            self.feeding.start()
            wait_for("the first acknowledgements", lambda: self.feeding.count() >= 4, FIRST_S)
            self.readers = [oracles.Reader(server, RUN, 1) for server in self.cluster.servers]
            self.side_runs = self._make_side_runs() if self.settings.side_runs else None
            try:
                for kill in kills:
                    if self.feeding.over():
                        break
                    self._kill(kill)
                self._finish()
            finally:
                self.feeding.stop()
                if self.side_runs is not None:
                    self.side_runs.stop()

    def coverage(self) -> points.Coverage:
        return points.Coverage.read(sorted(self.cluster_dir.glob("*.coverage")))

    def figures(self) -> dict[str, Any]:
        return dict(
            kinds=dict(self.kinds), heals=[round(h, 2) for h in self.heals], progress_max=round(self.progress_max, 2), rss_max=self.rss_max,
            rows=self.rows, pulls=self.pulls, rollbacks=self.rollbacks,
        )  # fmt: skip

    # ---- killing

    def _first_start(self, process: Process) -> None:
        """The first life of a server on an empty directory is cut short once, at any point of its start."""
        if process.name.startswith("server"):
            early = ("dir-", "identity-", "file-", "incarnation-", "store-", "listen-")
            plan = plan_of(self.random, self.random.choice([p for p in points.table() if p.name.startswith(early)]))
            process.start(wait=False, environment={"BALLAST_FAILPOINTS": plan})
            if self._await_start(process, plan):
                return
            self._assert_planned(process, plan)
        process.start()

    def _kill(self, kill: Kill) -> None:
        await_progress(self.feeding, self.random.randint(2, 12), HEAL_S)
        process = self._process(kill.process)
        if kill.point in CUTS:
            self._live_shortly(process)
        others = [self._process(kill.also)] if kill.also else []
        how = self._strike(process, kill)
        start = time.monotonic()
        for other in others:
            other.kill()
            self._count(KILL)
        acked = self.feeding.last_version
        for other in others:
            if other in self.cluster.servers:
                self._check_log(other, acked)
            other.start(wait=False)
        for plan in (*map(_possible, kill.nested), ""):
            left = self._check_log(process, acked)
            process.start(wait=False, environment=self._environment(plan))
            if plan and not self._await_start(process, plan):
                self._assert_planned(process, plan)
                continue
            if plan:  # not passed by this start: it lives, and may still come by later
                process.kill()
                self._count(KILL)
        self._await_healing(process, others, left, acked)
        self.heals.append(time.monotonic() - start)
        if self.asked is not None:
            self.asked(HEAL_S)
            self.asked = None
        more = " ".join((*kill.nested, kill.also, "rollback" if kill.rollback else ""))
        self.report(f"{sum(self.kinds.values()):5d}  {process.name:9s} {how:34s} {more:60s} acked {acked:5d}  healed in {self.heals[-1]:.2f} s")

    def _strike(self, process: Process, kill: Kill) -> str:
        """Ends the process as planned. Returns how it went."""
        plan = f"{kill.point}={kill.action}@{kill.nth}"
        if kill.point:
            self._control(process).write_text(plan)
        if kill.rollback:
            self.asked = in_background(self._roll_back)
        if kill.point:
            if self._await_death(process, kill.point):
                self._control(process).unlink()  # else it would replace the plans of the next start
                self._assert_planned(process, plan)
                return plan
        elif kill.rollback:
            time.sleep(self.random.uniform(0, 0.3))  # anywhere in the rollback
        process.kill()
        self._control(process).unlink(missing_ok=True)
        self._count(KILL)
        return f"{KILL} ({kill.point} not passed)" if kill.point else KILL

    def _await_death(self, process: Process, point: str) -> bool:
        """Whether the armed point was passed in time."""
        if point in CUTS:  # what cuts the log
            in_background(lambda: [self.cluster.ctl("ckpt", "save", RUN, check=False) for _ in range(2)])
        try:
            wait_for(point, lambda: not process.alive(), max(self.arm_s, SELDOM_S if point.startswith(SELDOM) else 0))
        except TimeoutError:
            pass
        return not process.alive()

    def _live_shortly(self, process: Process) -> None:
        """Three lives: each begins a segment, so that the next cut of the log has several below it."""
        for _ in range(3):
            process.kill()
            self._count(KILL)
            process.start()

    def _roll_back(self) -> None:
        """The run goes back to one of its checkpoints, or cannot because a server dies."""
        try:
            with Connection(self.cluster.address) as connection:
                manifests = connection.call("ListManifests", control_pb2.RunRef(run=RUN)).manifests
                if not manifests:
                    return
                to = self.random.choice(list(manifests)).version
                connection.call("Rollback", control_pb2.ManifestRef(run=RUN, version=to), timeout_s=20.0)
        except BallastError as error:
            if error.code not in NO_ROLLBACK:
                raise

    def _environment(self, plan: str) -> dict[str, str]:
        """Of a life that ends by `plan`."""
        if plan.startswith(MALLOC):
            return {"LD_PRELOAD": str(failing_malloc(self.directory)), "BALLAST_MALLOC_FAILS_AT": plan.removeprefix(MALLOC)}
        return {"BALLAST_FAILPOINTS": plan} if plan else {}

    def _await_start(self, process: Process, plan: str) -> bool:
        """Whether the process serves; False when it ended first. Memory may run out a little later, too."""
        wait_for(f"{process.name} to serve or to end", lambda: not process.alive() or process.is_ready(), HEAL_S)
        if plan.startswith(MALLOC):
            try:
                wait_for("memory to run out", lambda: not process.alive(), self.arm_s)
            except TimeoutError:
                pass
        return process.alive()

    def _assert_planned(self, process: Process, plan: str) -> None:
        """A process that is dead ended by its plan and by nothing else."""
        assert process.popen is not None
        status, said = process.popen.wait(patience(30)), process.log_since_start()
        if plan.startswith(MALLOC):
            assert status == -signal.SIGABRT or status > 0, f"{process.name} ended with {status} without memory:\n{process.log_tail()}"
            assert "failing_malloc" in said, f"{process.name} ended with {status} before {plan}:\n{process.log_tail()}"
            return self._count("no memory")
        name, action = plan.split("@")[0].split("=")
        assert status == -9 if action == "kill" else status > 0, f"{process.name} ended with {status}, planned was {plan}:\n{process.log_tail()}"
        assert f"failpoint {name}" in said, f"{process.name} ended with {status} without {plan}:\n{process.log_tail()}"
        self._count(action)

    def _count(self, kind: str) -> None:
        self.kinds[kind] += 1

    def _control(self, process: Process) -> Path:
        return self.cluster_dir / f"{process.name}.points"

    def _process(self, name: str) -> Process:
        return next(p for p in self.cluster.processes() if p.name == name)

    def _await_healing(self, process: Process, others: list[Process], left: Optional[State], acked: int) -> None:
        """All serve; the killed server recovered what it left; somebody is acknowledged."""
        for p in self.cluster.processes():
            p.await_ready(HEAL_S)
        ready, acks = time.monotonic(), self.feeding.count()
        if process in self.cluster.servers:
            recovered = wait_for(f"{process.name} to recover", lambda: oracles.last_recovery(process, RUN), HEAL_S)
            assert recovered is not None
            assert left is None or recovered == left, f"{process.name} recovered {recovered}, its log held {left}"
            assert process is not self.cluster.servers[0] or recovered.version >= acked, f"recovered {recovered}, feeds were told of version {acked}"
        wait_for(f"an acknowledgement after the death of {process.name}", lambda: self.feeding.count() > acks or self.feeding.over(), HEAL_S)
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

    def _finish(self) -> None:
        """Nothing is killed any more: every row that was given is counted once, and the state is that of the log."""
        self.feeding.stop()
        if self.side_runs is not None:
            self.side_runs.finish(self.cluster_dir, [server.name for server in self.cluster.servers], RUN)
        self.rows = self.feeding.finish()
        with Connection(self.cluster.address) as connection:
            self.rollbacks = int(get_run(connection, RUN).generation) - 1
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
        assert manifest.version >= self.feeding.last_version
        for shard, server in zip(sorted(manifest.shards, key=lambda s: s.shard), self.cluster.servers):
            live, data_dir = f"{shard.digest:016x}", self.cluster_dir / server.name
            by_server, by_numpy = oracles.replay_by_server(data_dir, RUN), oracles.hashes_by_numpy(data_dir, RUN)
            assert by_numpy[by_server.version] == by_server.hash, (server.name, by_server)
            assert by_numpy[manifest.version] == live, (server.name, manifest.version, live)
