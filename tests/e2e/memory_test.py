"""Memory that runs out: a server that cannot have what it needs ends at once, or refuses; it never serves other bits than those that were decided.

No exceptions: a failed allocation ends the process, which is one more kill -9. (tests/crash makes allocations fail at random places.)
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ballast.errors import BallastError
from ballast.model import ModelFile
from tests.crash import oracles
from tests.support import audit
from tests.support.cluster import SANITIZED, Cluster, Process, wait_for
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.rows import CounterRows

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(SANITIZED), reason="a sanitizer takes its address space when the process starts: a limit on it says nothing of what is allocated"),
]

SLOTS, ROWS, PARTITIONS = 500, 2000, 4
MIB = 1 << 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_counter(tmp_path_factory.mktemp("model") / "counter.pt", SLOTS)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", servers=2, workers=1, server_flags=("--log-retain", "all")) as c:
        yield c


def make_job(cluster: Cluster, model: ModelFile, run: str) -> FeederJob:
    job = FeederJob(cluster.address, run, model, CounterRows(ROWS, SLOTS, PARTITIONS), run_options=options(partitions=PARTITIONS))
    job.create()
    return job


def allow(process: Process, more: int) -> None:
    """From now on the process may take `more` bytes of address space."""
    assert process.popen is not None
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    taken = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmSize:"))
    resource.prlimit(process.popen.pid, resource.RLIMIT_AS, (taken + more, taken + more))


def assert_trained_once(cluster: Cluster, job: FeederJob, report: object, epochs: int) -> None:
    assert report.committed and report.rows_in == report.rows_trained == ROWS, report  # type: ignore[attr-defined]
    np.testing.assert_array_equal(audit.live_weights(cluster, job.run)["weight"], job.rows.expected(epochs))  # type: ignore[attr-defined]
    audit.assert_each_batch_once(cluster, job.run)
    for server in cluster.servers:
        data = cluster.directory / server.name
        assert oracles.replay_by_server(data, job.run) == oracles.replay_by_numpy(data, job.run)


@pytest.mark.parametrize("index", [0, 1])
def test_a_server_that_runs_out_of_memory_while_it_trains(cluster: Cluster, model: ModelFile, index: int) -> None:
    """It ends, comes back, and what was acknowledged is there."""
    job = make_job(cluster, model, "small")
    epoch = in_background(lambda: job.run_epoch(1))
    job.acks.await_count(20)
    server = cluster.servers[index]
    allow(server, 0)
    wait_for("the server to run out of memory", lambda: not server.alive() or job.acks.count() >= ROWS // 16)
    if server.alive():  # what it had was enough for the rest
        server.kill()
    acked = job.acks.last_version
    left = oracles.replay_by_numpy(cluster.directory / server.name, job.run)
    assert index != 0 or left.version >= acked
    server.start()
    assert oracles.last_recovery(server, job.run) == left or index != 0
    assert_trained_once(cluster, job, epoch(60), 1)
    assert_trained_once(cluster, job, job.run_epoch(2), 2)
