"""Each row is trained exactly once, whatever dies or happens twice. The counter model shows it: weight[slot] is the sum of what was trained.

Real servers and workers; the feeds are those of ballast.spark, driven by threads of the test.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from ballast.model import ModelFile
from tests.support import audit
from tests.support.cluster import REPOSITORY, Cluster, patience, wait_for
from tests.support.feeder import FeederJob, TaskFailed, export_counter, in_background, options
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

SLOTS = 1000
ROWS = 6000
PARTITIONS = 4
RESIDUAL_MAX = 0.5 * 14 / 127  # of one element: half a quantization step, where a contribution holds a slot at most twice
STALENESS: list[Optional[int]] = [0, 1, None]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_counter(tmp_path_factory.mktemp("model") / "counter.pt", SLOTS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two servers and two workers for all tests of this module: what they kill they start again."""
    with Cluster(tmp_path_factory.mktemp("cluster"), servers=2, workers=2, server_flags=("--log-retain", "all")) as c:
        yield c


@pytest.fixture(autouse=True)
def remove_run(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """So that a server that is killed has one run to recover, not those of all tests before."""
    yield
    if all(p.alive() for p in cluster.processes()):
        cluster.ctl("run", "rm", name_of(request), "--force")


def make_job(cluster: Cluster, model: ModelFile, run: str, varied: bool = False, stall_s: float = 30.0, **changes: object) -> FeederJob:
    rows = CounterRows(ROWS, SLOTS, PARTITIONS, varied)
    job = FeederJob(cluster.address, run, model, rows, run_options=options(partitions=PARTITIONS, **changes), stall_s=stall_s)
    job.create()
    return job


def name_of(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-")


def assert_trained_once(cluster: Cluster, job: FeederJob, report: object, directory: Path, epochs: int = 1) -> None:
    assert report.committed and not report.missing, report
    assert report.rows_in == report.rows_trained == ROWS and report.rows_skipped == 0, report
    expected = job.rows.expected(epochs)
    np.testing.assert_array_equal(audit.live_weights(cluster, job.run)["weight"], expected)
    np.testing.assert_array_equal(audit.exported_weights(cluster, job.run, directory)["weight"], expected)
    audit.assert_each_batch_once(cluster, job.run)


@pytest.mark.parametrize("staleness", STALENESS)
def test_nothing_happens(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest, staleness: Optional[int]) -> None:
    job = make_job(cluster, model, name_of(request), staleness_max=staleness)
    assert_trained_once(cluster, job, job.run_epoch(1), tmp_path)
    assert_trained_once(cluster, job, job.run_epoch(2), tmp_path, epochs=2)


@pytest.mark.parametrize("staleness", STALENESS)
def test_worker_killed(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest, staleness: Optional[int]) -> None:
    job = make_job(cluster, model, name_of(request), staleness_max=staleness)
    epoch = in_background(lambda: job.run_epoch(1))
    job.acks.await_count(60)
    cluster.workers[0].kill()
    job.acks.await_count(120)
    cluster.workers[0].start()
    assert_trained_once(cluster, job, epoch(120), tmp_path)


@pytest.mark.parametrize("staleness", STALENESS)
def test_worker_told_to_stop(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest, staleness: Optional[int]) -> None:
    """It finishes or hands back what it holds, its feeds move, and it ends in order."""
    job = make_job(cluster, model, name_of(request), staleness_max=staleness)
    epoch = in_background(lambda: job.run_epoch(1))
    job.acks.await_count(60)
    worker = cluster.workers[0]
    worker.kill(signal.SIGTERM)
    assert worker.popen is not None and worker.popen.returncode == 0
    job.acks.await_count(120)
    worker.start()
    assert_trained_once(cluster, job, epoch(120), tmp_path)


def test_worker_frozen_beyond_its_lease(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It holds grants and perhaps a contribution; others train its rows; then it goes on where it was."""
    job = make_job(cluster, model, name_of(request), lease_s=5.0, stall_s=3.0)
    epoch = in_background(lambda: job.run_epoch(1))
    job.acks.await_count(60)
    cluster.workers[0].kill(signal.SIGSTOP)
    try:
        job.acks.await_count(150)
    finally:
        cluster.workers[0].kill(signal.SIGCONT)
    assert_trained_once(cluster, job, epoch(120), tmp_path)


@pytest.mark.parametrize("server", [0, 1])
@pytest.mark.parametrize("staleness", STALENESS)
def test_server_killed(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest, staleness: Optional[int], server: int) -> None:
    job = make_job(cluster, model, name_of(request), staleness_max=staleness)
    epoch = in_background(lambda: job.run_epoch(1))
    for acks in (60, 150, 240):
        job.acks.await_count(acks)
        cluster.servers[server].kill()
        cluster.servers[server].start()
    assert_trained_once(cluster, job, epoch(120), tmp_path)


def test_driver_killed_and_rerun(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run = name_of(request)
    plan = {"rows": ROWS, "slots": SLOTS, "epochs": 2, "options": {"partitions": PARTITIONS, "epochs": 2}}
    command = [sys.executable, "-m", "tests.support.driver", cluster.address, run, model.path, json.dumps(plan)]
    job = FeederJob(cluster.address, run, model, CounterRows(ROWS, SLOTS, PARTITIONS))
    for rows in (ROWS // 3, ROWS * 4 // 3):
        driver = subprocess.Popen(command, cwd=REPOSITORY, env={**_environment()})
        try:
            wait_for(f"{rows} rows of {run}", lambda: _rows_trained(job) >= rows, 60)
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    done = subprocess.run(command, cwd=REPOSITORY, env=_environment(), capture_output=True, text=True, timeout=patience(120))
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["committed"] for line in done.stdout.splitlines()] == [True, True]
    assert_trained_once(cluster, job, job.begin(2), tmp_path, epochs=2)


def test_speculative_twin(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Two attempts of every partition run at once, on different workers."""
    job = make_job(cluster, model, name_of(request))
    job.begin(1)
    first, second = (w.address for w in cluster.workers)
    twins = [
        in_background(lambda p=p, a=avoided: job.feed(1, p, attempt=f"avoids {a}", avoid=(a,)))  # type: ignore[misc]
        for p in range(PARTITIONS)
        for avoided in (first, second)
    ]
    counts = [twin(120) for twin in twins]
    assert sum(c.trained for c in counts) >= sum(c.batches for c in counts) // 2
    assert sum(c.duplicates + c.unsent for c in counts) > 0
    assert_trained_once(cluster, job, job.commit(1, {c.partition: c for c in counts}), tmp_path)


def test_task_fails_after_its_last_batch(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    job = make_job(cluster, model, name_of(request))
    job.begin(1)
    others = in_background(lambda: {p: job.feed(1, p) for p in range(1, PARTITIONS)})
    with pytest.raises(TaskFailed):
        job.feed(1, 0, fail_at_end=True)
    again = job.feed(1, 0, attempt="1")
    assert again.trained == 0
    assert_trained_once(cluster, job, job.commit(1, {0: again, **others(120)}), tmp_path)


def test_task_killed_at_any_batch(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    job = make_job(cluster, model, name_of(request))
    job.begin(1)

    def until(last: int):  # type: ignore[no-untyped-def]
        def before(seq: int) -> None:
            if seq > last:
                raise TaskFailed(f"killed before batch {seq}")

        return before

    counts = {}
    for partition in range(PARTITIONS):
        for last in (0, 7, 31):
            with pytest.raises(TaskFailed):
                job.feed(1, partition, attempt=str(last), before=until(last))
        counts[partition] = job.feed(1, partition)
    assert_trained_once(cluster, job, job.commit(1, counts), tmp_path)


def test_late_feed_of_a_committed_epoch(cluster: Cluster, model: ModelFile, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A losing attempt goes on writing after the epoch was committed, another one only begins then: none of their rows is trained."""
    job = make_job(cluster, model, name_of(request))
    job.begin(1)
    committed, halfway = threading.Event(), threading.Event()

    def before(seq: int) -> None:
        if seq == 20:
            halfway.set()
            assert committed.wait(patience(60))

    loser = in_background(lambda: job.feed(1, 0, attempt="loser", before=before))
    assert halfway.wait(patience(60))
    report = job.commit(1, job.feed_all(1))
    committed.set()
    late = loser(60)
    assert late.trained <= 20 and late.skipped == 0
    begins_late = job.feed(1, 1, attempt="late")
    assert begins_late.trained == 0
    assert_trained_once(cluster, job, report, tmp_path)


@pytest.mark.parametrize("event", ["nothing", "server 0 killed", "server 1 killed", "twins"])
@pytest.mark.parametrize("staleness", STALENESS)
def test_int8_loses_nothing_but_what_residuals_hold(
    cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest, staleness: Optional[int], event: str
) -> None:
    """Quantized amounts 1 .. 7: what the weights lack is in the residuals of the live sessions, to what float32 can hold.

    A server's death may end a session whose contributions became stale meanwhile: then its residual is lost, and nothing more.
    """
    job = make_job(cluster, model, name_of(request), varied=True, codec="int8", staleness_max=staleness)
    job.begin(1)
    feeds = [in_background(lambda: job.feed_all(1)) for _ in range(2 if event == "twins" else 1)]
    if event.startswith("server"):
        server = cluster.servers[int(event.split()[1])]
        job.acks.await_count(100)
        server.kill()
        server.start()
    counts = [feed(120) for feed in feeds][0]
    residuals = audit.residual_sum(cluster, job.run, "weight", SLOTS)
    report = job.commit(1, counts)
    assert report.committed and report.rows_trained == ROWS
    weights = audit.live_weights(cluster, job.run)["weight"]
    ended = audit.sessions(cluster, job.run) - len(cluster.workers)
    assert ended <= 0 or event.startswith("server"), f"{ended} sessions ended, but nothing happened"
    # A contribution is the negative amount: what was held back of it is missing in the weight with the opposite sign.
    np.testing.assert_allclose(weights - residuals, job.rows.expected(), rtol=0, atol=1e-3 + max(0, ended) * RESIDUAL_MAX)
    audit.assert_each_batch_once(cluster, job.run)


def _rows_trained(job: FeederJob) -> int:
    from ballast.errors import BallastError

    try:
        return int(job.show().rows_trained)
    except BallastError as e:
        if e.reason == "NO_RUN":  # the driver is still starting
            return 0
        raise


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'client' / 'python'}"}
