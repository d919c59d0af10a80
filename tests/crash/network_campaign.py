"""Network faults at random, for as long as it is told: every epoch has a few of them, and after every epoch each row must count exactly once.

    python -m tests.crash.network_campaign --duration 600 --seed 1 [--results FILE]

A campaign is a series of parts of two minutes, each a new cluster with the next seed. `--results` (tests/support/results.py) gets a line for each; a
later call goes on behind the last seed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import audit, faults
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.proxied import ProxiedCluster
from tests.support.results import Results
from tests.support.rows import CounterRows

ROWS, SLOTS, PARTITIONS = 4000, 500, 4
FAULTS_AN_EPOCH = 4
PART_S = 120.0


class Campaign:
    def __init__(self, cluster: ProxiedCluster, job: FeederJob, rows: CounterRows, seed: int) -> None:
        self._cluster, self._job, self._rows = cluster, job, rows
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()

    def epoch(self, number: int) -> None:
        job = self._job
        before = job.acks.count()
        running = in_background(lambda: job.run_epoch(number))
        for _ in range(FAULTS_AN_EPOCH):
            before += self._random.randrange(20, 50)
            job.acks.await_count(before, 120)
            self._one_fault()
        report = running(300)
        assert report.committed and report.rows_in == report.rows_trained == ROWS and report.rows_skipped == 0, report
        for proxy in self._cluster.proxies():  # the reader below is no part of the system that is tested
            proxy.disarm()
        np.testing.assert_array_equal(audit.live_weights(self._cluster, job.run)["weight"], self._rows.expected(number))

    def _one_fault(self) -> None:
        method = self._random.choice(list(faults.LINKS))
        proxies = faults.LINKS[method](self._cluster)
        if self._random.random() < 0.6:
            fault = self._random.choice(faults.AT_A_MESSAGE)
            for proxy in proxies:
                fault(proxy, method)
            self.done[f"{method} {fault.__name__}"] += 1
            return
        passing = self._random.choice(faults.FOR_A_WHILE)
        for proxy in proxies:
            passing(proxy)
        time.sleep(self._random.uniform(0.1, 2.0))  # how long the fault lasts
        cut = self._random.random() < 0.5
        for proxy in proxies:
            proxy.heal(cut=cut)
        self.done[f"{method} {passing.__name__}{' and cut' if cut else ''}"] += 1


def play(seed: int, seconds: float) -> dict[str, Any]:
    """One part. Returns its figures; raises when a row is lost or counted twice, or nothing goes on."""
    print(f"seed {seed}", flush=True)
    start, epochs = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as directory, ProxiedCluster(Path(directory), server_flags=("--log-retain", "all")) as cluster:
        model = export_counter(Path(directory) / "counter.pt", SLOTS)
        rows = CounterRows(ROWS, SLOTS, PARTITIONS)
        settings = options(partitions=PARTITIONS, lease_s=5.0)
        job = FeederJob(cluster.control.address, "network", model, rows, run_options=settings, stall_s=5.0)
        job.create()
        campaign = Campaign(cluster, job, rows, seed)
        while time.monotonic() - start < seconds:
            campaign.epoch(epochs + 1)
            epochs += 1
        audit.assert_each_batch_once(cluster, job.run)
    return dict(epochs=epochs, rows=epochs * ROWS, faults=sum(campaign.done.values()), kinds=dict(sorted(campaign.done.items())))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=60, help="seconds")
    parser.add_argument("--seed", type=int, default=1, help="of the first part, if the results file has none that is later")
    parser.add_argument("--results", type=Path, help="JSON lines: read to go on, appended to")
    arguments = parser.parse_args()
    results, start, result = Results(arguments.results), time.monotonic(), "ok"
    while result == "ok" and (left := arguments.duration - (time.monotonic() - start)) > 0:
        seed, begun, figures = results.next_seed(arguments.seed), time.monotonic(), {}
        try:
            figures = play(seed, min(PART_S, left))
        except Exception as error:
            traceback.print_exc()
            result = f"{type(error).__name__}: {str(error)[:500]}"
        print(json.dumps(results.add(seed, 1, time.monotonic() - begun, result, figures)), flush=True)
    return int(result != "ok")


if __name__ == "__main__":
    sys.exit(main())
