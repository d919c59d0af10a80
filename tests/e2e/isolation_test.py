"""One run never stalls another: while a server is stuck in one run's work, another run is made, trained, checkpointed, read and removed.

The stuck work is a failpoint that waits while a file exists; it is armed while only the first run has anything to do, and fires once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ballast.model import ModelFile
from tests.support import audit
from tests.support.cluster import Cluster, wait_for
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

SLOTS, ROWS, PARTITIONS = 500, 2000, 4
# The owner thread of a shard, its log thread, its checkpoint thread.
STUCK = [("server-0", "decision-apply"), ("server-1", "decision-apply"), ("server-0", "segment-sync"), ("server-1", "segment-sync"), ("server-1", "block-write")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_counter(tmp_path_factory.mktemp("model") / "counter.pt", SLOTS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    points = {"BALLAST_FAILPOINTS_FILE": f"{directory}/{{name}}.points"}
    with Cluster(directory, servers=2, workers=2, server_binary="ballast-server-mutable", environment=points) as c:
        yield c


def make_job(cluster: Cluster, model: ModelFile, run: str) -> FeederJob:
    job = FeederJob(cluster.address, run, model, CounterRows(ROWS, SLOTS, PARTITIONS), run_options=options(partitions=PARTITIONS))
    job.create()
    return job


def assert_trained(cluster: Cluster, job: FeederJob, epochs: int) -> None:
    np.testing.assert_array_equal(audit.live_weights(cluster, job.run)["weight"], job.rows.expected(epochs))  # type: ignore[attr-defined]


@pytest.mark.parametrize("server,point", STUCK)
def test_one_run_never_stalls_another(cluster: Cluster, model: ModelFile, tmp_path: Path, server: str, point: str) -> None:
    stuck = make_job(cluster, model, f"stuck-{server}-{point}")
    assert stuck.run_epoch(1).committed
    process = next(p for p in cluster.servers if p.name == server)
    wall, plans = tmp_path / "wall", cluster.directory / f"{server}.points"
    wall.touch()
    told = process.log_since_start().count(f"failpoint {point}")
    plans.write_text(f"{point}=pause:{wall}*1")
    epoch = in_background(lambda: stuck.run_epoch(2))
    try:
        wait_for(f"{server} to be stuck at {point}", lambda: process.log_since_start().count(f"failpoint {point}") > told)
        other = make_job(cluster, model, f"other-{server}-{point}")
        assert other.run_epoch(1).committed  # with a checkpoint
        assert_trained(cluster, other, 1)
        for p in cluster.servers:
            assert p.alive()
        assert not [e for e in stuck.show().epochs if e.epoch == 2 and e.committed], "nothing was stuck"
        cluster.ctl("run", "rm", other.run, "--force")
    finally:
        wall.unlink()
        plans.unlink()
    assert epoch(60).committed
    assert_trained(cluster, stuck, 2)
    cluster.ctl("run", "rm", stuck.run, "--force")
