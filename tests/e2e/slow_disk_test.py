"""Disks that take 100 ms or two seconds for each write or sync, or hang: everything is slower, and nothing else.

The delays are failpoints of the server (server/failpoint_list.h), inside what the metrics measure.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ballast.model import ModelFile
from tests.support import audit
from tests.support.cluster import Cluster, Process, wait_for
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

SLOTS, PARTITIONS, STEP_ROWS = 500, 4, 64
LEASE_S = 5.0
# What a disk is asked for: syncs of the log, synced records and files of the store, small files.
CALLS = ("segment-sync", "record-put", "sst-finish", "sst-ingest", "file-sync")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_counter(tmp_path_factory.mktemp("model") / "counter.pt", SLOTS)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    points = {"BALLAST_FAILPOINTS_FILE": f"{tmp_path}/cluster/{{name}}.points"}
    with Cluster(tmp_path / "cluster", servers=2, workers=2, server_flags=("--log-retain", "all"), server_binary="ballast-server-mutable", environment=points) as c:
        yield c


def make_job(cluster: Cluster, model: ModelFile, steps: int) -> FeederJob:
    rows = CounterRows(steps * STEP_ROWS, SLOTS, PARTITIONS)
    job = FeederJob(cluster.address, "slow", model, rows, run_options=options(partitions=PARTITIONS, step_rows=STEP_ROWS, lease_s=LEASE_S))
    job.create()
    return job


def set_plan(cluster: Cluster, plan: str, servers: list[Process]) -> None:
    for server in servers:
        (cluster.directory / f"{server.name}.points").write_text(plan)


def slow(milliseconds: int) -> str:
    return ";".join(f"{call}=delay:{milliseconds}" for call in CALLS)


def histogram(server: Process, name: str) -> tuple[float, float]:
    return server.metric(f"{name}_sum"), server.metric(f"{name}_count")


def mean_s(server: Process, name: str, before: tuple[float, float]) -> float:
    """Of what was observed since `before`."""
    seconds, count = histogram(server, name)
    return (seconds - before[0]) / max(1.0, count - before[1])


def assert_trained_once(cluster: Cluster, job: FeederJob, report: object, epochs: int) -> None:
    rows = job.rows.rows  # type: ignore[attr-defined]
    assert report.committed and report.rows_in == report.rows_trained == rows and not report.rows_skipped, report  # type: ignore[attr-defined]
    np.testing.assert_array_equal(audit.live_weights(cluster, job.run)["weight"], job.rows.expected(epochs))  # type: ignore[attr-defined]
    audit.assert_each_batch_once(cluster, job.run)


@pytest.mark.parametrize("milliseconds,steps", [(100, 24), (2000, 2)])
def test_slow_disk_is_slower_only(cluster: Cluster, model: ModelFile, milliseconds: int, steps: int) -> None:
    """No lease ends, no session is opened again, steps and a checkpoint go on, and the metrics tell why they are slow."""
    job = make_job(cluster, model, steps)
    job.run_epoch(1)
    sessions = audit.sessions(cluster, job.run)
    servers = {server.name: server for server in cluster.servers}
    before = {name: histogram(server, "ballast_log_fsync_seconds") for name, server in servers.items()}
    commits = histogram(cluster.servers[0], "ballast_coordinator_commit_seconds")
    set_plan(cluster, slow(milliseconds), cluster.servers)
    report = job.run_epoch(2)  # its end is a checkpoint
    assert_trained_once(cluster, job, report, 2)
    assert audit.sessions(cluster, job.run) == sessions
    assert "no progress for" not in cluster.servers[0].log_tail(1 << 20)
    for name, (seconds, count) in before.items():  # half: the first ones came before the plan was read
        assert mean_s(servers[name], "ballast_log_fsync_seconds", (seconds, count)) >= 0.5 * milliseconds / 1000, name
    assert mean_s(cluster.servers[0], "ballast_coordinator_commit_seconds", commits) >= 0.5 * milliseconds / 1000


@pytest.mark.slow
def test_a_sync_that_outlasts_the_lease(cluster: Cluster, model: ModelFile) -> None:
    """A worker that waits for a receipt is not at fault: the lease may grow, but the run goes on and each row counts once."""
    job = make_job(cluster, model, 1)
    job.run_epoch(1)
    set_plan(cluster, f"segment-sync=delay:{int(1.3 * LEASE_S * 1000)}", [cluster.servers[1]])
    report = in_background(lambda: job.run_epoch(2))(180)
    assert_trained_once(cluster, job, report, 2)


@pytest.mark.parametrize("index", [0, 1])
def test_nothing_is_acknowledged_while_a_sync_hangs(cluster: Cluster, model: ModelFile, tmp_path: Path, index: int) -> None:
    """Of either server. Reads go on, the server stays healthy, and when the disk answers so does everything else."""
    job = make_job(cluster, model, 60)
    job.begin(1)
    feeding = in_background(lambda: job.feed_all(1))
    job.acks.await_count(20)
    hanging, server = tmp_path / "hanging", cluster.servers[index]
    hanging.touch()
    set_plan(cluster, f"segment-sync=pause:{hanging}", [server])
    wait_for("a sync to hang", lambda: "failpoint segment-sync" in server.log_since_start())
    quiet = _await_quiet(job)
    audit.live_weights(cluster, job.run)
    assert all(process.alive() for process in cluster.processes())
    assert job.acks.count() == quiet
    hanging.unlink()
    report = job.commit(1, feeding(60))
    assert_trained_once(cluster, job, report, 1)
    assert "no progress for" not in cluster.servers[0].log_tail(1 << 20)


def _await_quiet(job: FeederJob, seconds: float = 2.0) -> int:
    """Acknowledgements of what was durable before may still be on their way. Returns how many came when none does any more."""
    count, since = job.acks.count(), time.monotonic()

    def quiet() -> bool:
        nonlocal count, since
        if job.acks.count() != count:
            count, since = job.acks.count(), time.monotonic()
        return time.monotonic() - since > seconds

    wait_for("no further acknowledgement", quiet)
    return count
