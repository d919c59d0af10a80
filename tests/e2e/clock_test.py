"""The wall clock is set back by an hour while servers and workers run: nothing waits an hour longer, and each row counts once.

The processes read a clock that is an hour ahead of the kernel's: each deadline that is a time of day lies an hour beyond, as when the clock is
set back during the wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import audit
from tests.support.cluster import Cluster, patience
from tests.support.compiled import preloaded
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

SLOTS, ROWS, PARTITIONS = 1000, 20000, 4  # so many that the work goes on for seconds after the deaths
HOUR_S = 3600


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    environment = {"LD_PRELOAD": str(preloaded("wall_clock", tmp_path)), "BALLAST_CLOCK_OFFSET_FILE": str(tmp_path / "offset")}
    with Cluster(tmp_path / "cluster", servers=2, workers=2, environment=environment) as c:
        yield c


def test_clock_set_back_by_an_hour(cluster: Cluster, tmp_path: Path) -> None:
    job = FeederJob(
        cluster.address, "clock", export_counter(tmp_path / "counter.pt", SLOTS), CounterRows(ROWS, SLOTS, PARTITIONS),
        run_options=options(partitions=PARTITIONS, lease_s=patience(4)), stall_s=5.0,
    )  # fmt: skip
    job.create()
    epoch = in_background(lambda: job.run_epoch(1))
    job.acks.await_count(20)
    (tmp_path / "offset").write_text(str(HOUR_S))
    job.acks.await_count(60)
    cluster.workers[0].kill()  # its lease must end all the same, and a server must come back
    cluster.workers[0].start()
    cluster.servers[1].kill()
    cluster.servers[1].start()
    report = epoch(60)
    assert report.committed and report.rows_trained == ROWS
    # Nor was it a lease that ended a wait: gRPC's timers slept, and what they should have opened again stood still until then.
    assert not [line for w in cluster.workers for line in w.log_tail(1 << 20).splitlines() if "no progress" in line]
    np.testing.assert_array_equal(audit.live_weights(cluster, "clock")["weight"], job.rows.expected(1))
