"""The network fails in every way that TCP lets through, on every link; each row is trained exactly once and the epoch ends.

The links go through proxies of ours (tests/support/proxied.py). The counter model shows a lost or doubled row; decisions show a batch that is
in two of them, and versions that do not grow. tests/crash/network_campaign.py draws faults at random for as long as it is told.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ballast.model import ModelFile
from tests.support import audit, faults
from tests.support.cluster import Process, patience, wait_for
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.proxied import ProxiedCluster
from tests.support.proxy import UP
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

SLOTS = 500
ROWS = 4000
PARTITIONS = 4
BATCHES = 252  # of 16 rows, as CounterRows deals them


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_counter(tmp_path_factory.mktemp("model") / "counter.pt", SLOTS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedCluster]:
    with ProxiedCluster(tmp_path_factory.mktemp("cluster"), server_flags=("--log-retain", "all")) as c:
        yield c


@pytest.fixture(autouse=True)
def heal_and_remove(cluster: ProxiedCluster, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for proxy in cluster.proxies():
        proxy.heal()
    cluster.ctl("run", "rm", name_of(request), "--force", check=False)


def name_of(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-")


def make_job(cluster: ProxiedCluster, model: ModelFile, run: str, stall_s: float = 30.0, **changes: object) -> FeederJob:
    rows = CounterRows(ROWS, SLOTS, PARTITIONS)
    job = FeederJob(cluster.control.address, run, model, rows, run_options=options(partitions=PARTITIONS, **changes), stall_s=stall_s)
    job.create()
    return job


def assert_trained_once(cluster: ProxiedCluster, job: FeederJob, report: object, epochs: int = 1) -> None:
    assert report.committed and not report.missing, report
    assert report.rows_in == report.rows_trained == ROWS and report.rows_skipped == 0, report
    np.testing.assert_array_equal(audit.live_weights(cluster, job.run)["weight"], job.rows.expected(epochs))
    audit.assert_each_batch_once(cluster, job.run)
    versions = [d.version for d in audit.decisions(cluster, job.run)]
    assert versions == sorted(versions)


# ---- every stream, every fault, one after another in the middle of an epoch


@pytest.mark.parametrize("method", faults.LINKS)
def test_every_fault_on_a_link(cluster: ProxiedCluster, model: ModelFile, request: pytest.FixtureRequest, method: str) -> None:
    job = make_job(cluster, model, name_of(request))
    proxies = faults.LINKS[method](cluster)
    for proxy in proxies:
        proxy.fired.clear()
    epoch = in_background(lambda: job.run_epoch(1))
    job.acks.await_count(10)
    for fault in faults.AT_A_MESSAGE:
        fired = sum(len(proxy.fired) for proxy in proxies)
        for proxy in proxies:
            fault(proxy, method)
        wait_for(f"{fault.__name__} to happen", lambda: sum(len(proxy.fired) for proxy in proxies) > fired)
        job.acks.await_count(min(job.acks.count() + 8, BATCHES))
    for passing in (faults.hold_up, faults.hold_down):
        for proxy in proxies:
            passing(proxy)
        with pytest.raises(TimeoutError):
            job.acks.await_count(BATCHES + 1, seconds=0.3)
        for proxy in proxies:
            proxy.heal(cut=True)
        job.acks.await_count(min(job.acks.count() + 8, BATCHES))
    assert_trained_once(cluster, job, epoch(60))


# ---- unary calls of the driver

def test_calls_whose_reply_is_lost(cluster: ProxiedCluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    """Each was carried out; the client makes it again and gets the same answer."""
    methods = ["CreateRun", "BeginEpoch", "OpenFeed", "CommitEpoch"]
    cluster.control.fired.clear()
    for method in methods:
        cluster.control.at(method, "reply", cluster.control.cut_connection, times=2)
    job = make_job(cluster, model, name_of(request))
    report = job.run_epoch(1)
    assert set(cluster.control.fired) == {f"{method} reply" for method in methods}
    assert_trained_once(cluster, job, report)


def test_calls_that_arrive_again_much_later(cluster: ProxiedCluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    """Byte for byte, an epoch later: each is answered as before or refused, and changes nothing."""
    job = make_job(cluster, model, name_of(request))
    assert_trained_once(cluster, job, job.run_epoch(1))
    first = dict(cluster.control.captured)
    assert_trained_once(cluster, job, job.run_epoch(2), epochs=2)
    before = job.show()
    for method in ("CreateRun", "BeginEpoch", "OpenFeed", "CommitEpoch"):
        cluster.control.captured[method] = first[method]
        cluster.control.replay(method)
    after = job.show()
    assert (after.version, after.rows_trained, after.state) == (before.version, before.rows_trained, before.state)
    assert [e.committed for e in after.epochs] == [True, True]


# ---- partitions that outlast what was agreed

def test_worker_unreachable_beyond_its_lease(cluster: ProxiedCluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    """Its Work stream carries nothing towards server 0: it trains on grants that others have got meanwhile."""
    job = make_job(cluster, model, name_of(request), lease_s=2.0, stall_s=3.0)
    epoch = in_background(lambda: job.run_epoch(1))
    job.acks.await_count(40)
    cluster.work.hold(UP)
    wait_for("both sessions to be closed", lambda: job.show().sessions == 0, 20)
    cluster.work.heal()
    assert_trained_once(cluster, job, epoch(60))
    assert audit.sessions(cluster, job.run) > len(cluster.workers)


def test_server_unreachable_for_a_while(cluster: ProxiedCluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    """Nobody acknowledges what server 1 has not accepted; pushes to it go on."""
    job = make_job(cluster, model, name_of(request))
    epoch = in_background(lambda: job.run_epoch(1))
    job.acks.await_count(40)
    cluster.follow.hold(UP)
    acknowledged = job.acks.count()
    with pytest.raises(TimeoutError):
        job.acks.await_count(acknowledged + 65, seconds=1.5)  # more than what server 1 had accepted before
    cluster.follow.heal()
    assert_trained_once(cluster, job, epoch(60))


# ---- two processes that believe to be the same server


def copy_of(directory: Path, to: Path) -> Path:
    return Path(shutil.copytree(directory, to / "copy", ignore=shutil.ignore_patterns("LOCK")))


def test_zombie_server_1_on_a_copied_directory(cluster: ProxiedCluster, model: ModelFile, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The copy takes the place of server 1, which stops and says why; the copy lacks decided bytes and stops too. Then server 1 goes on."""
    job = make_job(cluster, model, name_of(request))
    assert_trained_once(cluster, job, job.run_epoch(1))
    real = cluster.servers[1]
    copy = copy_of(cluster.directory / "server-1", tmp_path)
    epoch = in_background(lambda: job.run_epoch(2))
    job.acks.await_count(BATCHES + 40)  # the copy is old now
    zombie = cluster.server_process("zombie", 1, copy, cluster.shards[1].address, cluster.follow.address)
    zombie.start(wait=False)
    assert zombie.popen is not None and real.popen is not None
    zombie.popen.wait(patience(30))
    real.popen.wait(patience(30))
    assert "is a zombie, or its data directory was copied" in real.log_since_start()
    assert "which shard 1 does not hold whole" in zombie.log_tail()
    for _ in range(2):  # both come to life 2; in the third life it is certainly the later one
        start_until_refused(real)
    assert_trained_once(cluster, job, epoch(60), epochs=2)


def start_until_refused(server: Process) -> None:
    """Starts it unless it runs; returns when it serves or has stopped."""
    if not server.alive():
        server.start(wait=False)
        wait_for(f"{server.name} to serve or to stop", lambda: server.is_ready() or not server.alive())


def test_two_coordinators(cluster: ProxiedCluster, model: ModelFile, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A copy of server 0 runs beside it. Server 1 follows the later life only; what the other one decides is acknowledged to nobody."""
    job = make_job(cluster, model, name_of(request))
    assert_trained_once(cluster, job, job.run_epoch(1))
    real, server1 = cluster.servers
    copy = copy_of(cluster.directory / "server-0", tmp_path)
    other = cluster.server_process("other", 0, copy, cluster.shards[0].address, "")
    other.start()
    epoch = in_background(lambda: job.run_epoch(2))
    job.acks.await_count(BATCHES + 40)
    cluster.follow.target = other.address  # server 1 comes to the copy, the workers stay
    cluster.follow.cut()
    wait_for("the copy to say that it is old", lambda: "the data of server 0 is older than that of server 1" in other.log_tail())
    with pytest.raises(TimeoutError):
        job.acks.await_count(job.acks.count() + 65, seconds=1.5)
    cluster.follow.target = real.address
    cluster.follow.cut()
    wait_for("server 1 to refuse the older life", lambda: "it is a zombie, or its data directory was copied" in server1.log_since_start())
    other.kill()
    for _ in range(2):  # life 2 may be taken for older than life 2 of the copy; life 3 is later
        real.kill()
        real.start()
    assert_trained_once(cluster, job, epoch(60), epochs=2)
