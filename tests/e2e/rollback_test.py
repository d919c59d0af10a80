"""A run goes back to a checkpoint, by request or because its contributions were not logged: each row counts once in the weights that stay.

Real servers and workers; the feeds are those of ballast.spark, driven by threads of the test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import ballast
import ballast.spark
from ballast.errors import BallastError
from ballast.model import ModelFile
from tests.crash import oracles
from tests.replay import replay_log
from tests.support import audit
from tests.support.cluster import Cluster, wait_for
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

SLOTS, ROWS, PARTITIONS = 500, 4000, 4
BATCHES = ROWS // 16
# Where a rollback can be cut: by the server that passes there first.
POINTS = [
    ("server-0", "rollback-begin"),
    ("server-0", "rollback-decide"),
    ("server-0", "rollback-restore"),
    ("server-1", "rollback-restore"),
    ("server-1", "rollback-restored"),
    ("server-0", "epoch-drop"),
    ("server-1", "checkpoint-seal"),
    ("server-0", "manifest-put"),
    ("server-0", "manifest-stored"),
    ("server-0", "manifest-drop"),
    ("server-0", "rollback-done"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return export_counter(tmp_path_factory.mktemp("model") / "counter.pt", SLOTS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    points = {"BALLAST_FAILPOINTS_FILE": f"{directory}/{{name}}.points"}
    with Cluster(directory, servers=2, workers=2, server_flags=("--log-retain", "all"), server_binary="ballast-server-mutable", environment=points) as c:
        yield c


@pytest.fixture(autouse=True)
def remove_run(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if all(p.alive() for p in cluster.processes()):
        cluster.ctl("run", "rm", name_of(request), "--force", check=False)


def name_of(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-")


def make_job(cluster: Cluster, model: ModelFile, run: str, **changes: Any) -> FeederJob:
    rows = CounterRows(ROWS, SLOTS, PARTITIONS, False)
    job = FeederJob(cluster.address, run, model, rows, run_options=options(partitions=PARTITIONS, **changes), stall_s=20.0)
    job.create()
    return job


def train(job: FeederJob, epoch: int, tries: int = 20) -> Any:
    """As ballast.spark does: what a commit misses is fed again."""
    for _ in range(tries):
        report = job.run_epoch(epoch)
        if report.committed:
            assert not report.missing and report.rows_in == report.rows_trained == ROWS, report
            return report
    raise AssertionError(f"epoch {epoch} still lacks batches: {report}")


def assert_weights(cluster: Cluster, job: FeederJob, epochs: int) -> None:
    np.testing.assert_array_equal(audit.live_weights(cluster, job.run)["weight"], job.rows.expected(epochs))
    audit.assert_each_batch_once(cluster, job.run)


def assert_replays(cluster: Cluster, run: str) -> None:
    for server in cluster.servers:
        data = cluster.directory / server.name
        assert oracles.replay_by_server(data, run) == oracles.replay_by_numpy(data, run)


def manifest_of(report: Any) -> int:
    return int(report.manifest_version)


def test_rolled_back_and_trained_again(cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    job = make_job(cluster, model, name_of(request))
    first = train(job, 1)
    train(job, 2)
    before = job.show()
    done = cluster.ctl_json("run", "rollback", f"{job.run}@{manifest_of(first)}")
    assert isinstance(done, dict) and done["generation"] == 2 and done["rows_trained"] == ROWS and done["version"] == before.version + 1, done
    assert_weights(cluster, job, 1)
    np.testing.assert_array_equal(audit.exported_weights(cluster, job.run, tmp_path)["weight"], job.rows.expected(1))
    now = job.show()
    assert [e.epoch for e in now.epochs if e.committed] == [1] and now.steps < before.steps
    assert_replays(cluster, job.run)
    train(job, 2)
    assert_weights(cluster, job, 2)
    for server in cluster.servers:  # what a restart finds
        server.kill()
        server.start()
    train(job, 3)
    assert_weights(cluster, job, 3)
    assert_replays(cluster, job.run)


def test_rolled_back_while_it_trains(cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    """Feeds go on; what they were told is trained and is not any more, the commit lists exactly, and they train it again."""
    job = make_job(cluster, model, name_of(request))
    job.begin(1)
    epoch = in_background(lambda: job.feed_all(1))
    job.acks.await_count(BATCHES // 4)
    version = cluster.ctl_json("ckpt", "save", job.run)["version"]  # type: ignore[index]
    counted = job.show().rows_trained
    job.acks.await_count(BATCHES // 2)
    cluster.ctl("run", "rollback", f"{job.run}@{version}")
    assert job.show().rows_trained < counted + ROWS // 2
    counts = epoch(120)
    report = job.commit(1, counts)
    assert not report.committed and sum(len(m.seqs) for m in report.missing) > 0, report
    trained = sum(c.batches for c in counts.values()) - sum(len(m.seqs) for m in report.missing)
    assert report.batches == trained
    train(job, 1)
    assert_weights(cluster, job, 1)
    assert_replays(cluster, job.run)


def test_a_feed_of_an_undone_epoch_hears_of_it(cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    job = make_job(cluster, model, name_of(request))
    version = manifest_of(train(job, 1))
    train(job, 2)
    job.begin(3)
    feeding = in_background(lambda: job.feed_all(3))
    job.acks.await_count(2 * BATCHES + 20)
    cluster.ctl("run", "rollback", f"{job.run}@{version}")
    with pytest.raises(BallastError) as error:
        feeding(60)
    assert error.value.reason == "EPOCH_NOT_BEGUN"
    train(job, 2)
    train(job, 3)
    assert_weights(cluster, job, 3)


@pytest.mark.parametrize("server,point", POINTS)
def test_killed_in_a_rollback(cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest, server: str, point: str) -> None:
    """On all servers it has happened, or on none."""
    job = make_job(cluster, model, name_of(request))
    version = manifest_of(train(job, 1))
    train(job, 2)
    process = next(p for p in cluster.servers if p.name == server)
    plans = cluster.directory / f"{server}.points"
    plans.write_text(f"{point}=kill")
    try:
        asked = in_background(lambda: cluster.ctl("--json", "run", "rollback", f"{job.run}@{version}", check=False))
        wait_for(f"{server} to be killed at {point}", lambda: not process.alive(), 30)
    finally:
        plans.unlink()
    process.start()
    answer = asked(60)
    now = wait_for("every server to be back", lambda: _settled(job), 30)
    if answer.returncode == 0:
        assert json.loads(answer.stdout)["generation"] == 2
    assert now.generation in (1, 2) and (now.generation == 2 or answer.returncode != 0)
    epochs = 2 if now.generation == 1 else 1
    assert len([e for e in now.epochs if e.committed]) == epochs
    assert_weights(cluster, job, epochs)
    train(job, epochs + 1)
    assert_weights(cluster, job, epochs + 1)
    assert_replays(cluster, job.run)


def _settled(job: FeederJob) -> Any:
    run = job.show()
    return run if not run.reason else None


def test_server_killed_with_durability_checkpoint(cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    """Nothing of the contributions is logged; the run goes back by itself, and the rows since then are fed again."""
    job = make_job(cluster, model, name_of(request), durability="checkpoint", checkpoint_versions=20)
    training = in_background(lambda: train(job, 1))
    for acks, server in ((BATCHES // 3, 1), (BATCHES // 2, 0)):
        job.acks.await_count(acks)
        cluster.servers[server].kill()
        cluster.servers[server].start()
    report = training(120)
    now = job.show()
    assert now.generation >= 2 and now.rows_trained == ROWS, now
    assert_weights(cluster, job, 1)
    for server in cluster.servers:  # the epoch is covered: nothing of it is lost
        server.kill()
        server.start()
    wait_for("every server to be back", lambda: _settled(job), 30)
    assert job.show().rows_trained == ROWS and job.show().generation == now.generation
    assert job.begin(1).committed and report.committed
    assert_weights(cluster, job, 1)
    train(job, 2)
    assert_weights(cluster, job, 2)
    for server in cluster.servers:  # of the contributions only the initial weights are logged
        records = replay_log.records(oracles.shard_dir(cluster.directory / server.name, job.run))
        assert len([r for r in records if r.kind == replay_log.CONTRIBUTION]) <= 2


def test_acknowledgements_say_what_they_promise(cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    for durability in ("log", "checkpoint"):
        job = make_job(cluster, model, f"{name_of(request)}-{durability}", durability=durability)
        train(job, 1)
        assert {a.durable for a in job.acks.all()} == {durability == "log"}
        cluster.ctl("run", "rm", job.run, "--force")


class Overflowing:
    """Finite rows and a finite loss, but the gradients of two rows of one slot add up to infinity."""

    partitions = PARTITIONS

    def partition(self, epoch: int, partition: int) -> Iterator[pa.RecordBatch]:
        ids = np.arange(partition, 256, PARTITIONS, dtype=np.int64)
        amounts = np.full(len(ids), 3e38, dtype=np.float32)
        yield pa.RecordBatch.from_arrays([pa.array(ids * 0), pa.array(amounts), pa.array(ids)], names=["c0", "c1", "id"])


def test_gradients_that_are_not_finite_never_enter_and_stop_the_run(cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    """Workers do not send them (and servers would refuse them: push_test), so many in a row stop the run with the reason, and a rollback is the way out."""
    job = make_job(cluster, model, name_of(request), skips_max=3)
    job.begin(1)
    wait_for("the initial weights", lambda: job.show().version == 1)
    version = cluster.ctl_json("ckpt", "save", job.run)["version"]  # type: ignore[index]
    rows, job.rows = job.rows, Overflowing()
    with pytest.raises(BallastError) as error:
        job.run_epoch(1)
    assert error.value.reason in ("RUN_STOPPED", "RUN_FAILED"), error.value
    stopped = job.show()
    assert "infinite or NaN" in stopped.reason and "3 batches in a row" in stopped.reason, stopped.reason
    assert not audit.live_weights(cluster, job.run)["weight"].any()
    job.rows = rows
    cluster.ctl("run", "rollback", f"{job.run}@{version}")
    train(job, 1)
    assert_weights(cluster, job, 1)


# ---- with Spark


def spark_train(ps: Any, df: Any, model: ModelFile, run: str, **changes: Any) -> Any:
    return ps.train(
        df, model=model.path, features=["slot", "amount"], id_col="id", batch_rows=16, step_rows=64, partitions=PARTITIONS, optimizer=ballast.SGD(lr=1.0),
        reduction="sum", codec="fp32", run_id=run, progress=False, **changes,
    )  # fmt: skip


def counter_frame(spark: Any) -> Any:
    return spark.range(ROWS).selectExpr("id", f"id % {SLOTS} as slot", "cast(1 as float) as amount")


@pytest.mark.slow
def test_train_again_after_a_rollback_feeds_what_is_undone(spark: Any, cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    run = name_of(request)
    with ballast.spark.connect(cluster.address) as ps:
        spark_train(ps, counter_frame(spark), model, run, epochs=2, checkpoint_versions=10)
        versions = [m["version"] for m in cluster.ctl_json("ckpt", "ls", run)]  # type: ignore[attr-defined]
        cluster.ctl("run", "rollback", f"{run}@{min(versions)}")
        undone = cluster.ctl_json("run", "show", run)
        assert undone["rows_trained"] < 2 * ROWS  # type: ignore[index]
        again = spark_train(ps, counter_frame(spark), model, run, epochs=2, checkpoint_versions=10)
    assert again.resumed and again.rows_in == again.rows_trained == 2 * ROWS, again
    np.testing.assert_array_equal(audit.live_weights(cluster, run)["weight"], 2 * CounterRows(ROWS, SLOTS, PARTITIONS).expected(1))


@pytest.mark.slow
def test_train_with_durability_checkpoint_outlives_crashes(spark: Any, cluster: Cluster, model: ModelFile, request: pytest.FixtureRequest) -> None:
    run = name_of(request)
    with ballast.spark.connect(cluster.address) as ps:
        training = in_background(
            lambda: spark_train(ps, counter_frame(spark), model, run, epochs=2, durability="checkpoint", checkpoint_versions=20)
        )
        for share, server in ((0.3, 1), (0.8, 0), (1.4, 1)):
            wait_for(f"{share} epochs of {run}", lambda: _rows(cluster, run) >= share * ROWS, 120)
            cluster.servers[server].kill()
            cluster.servers[server].start()
        result = training(180)
    assert result.rows_in == result.rows_trained == 2 * ROWS, result
    assert cluster.ctl_json("run", "show", run)["generation"] >= 2  # type: ignore[index]
    np.testing.assert_array_equal(audit.live_weights(cluster, run)["weight"], 2 * CounterRows(ROWS, SLOTS, PARTITIONS).expected(1))


def _rows(cluster: Cluster, run: str) -> int:
    runs: Any = cluster.ctl_json("run", "ls")
    return next((int(r["rows_trained"]) for r in runs if r["run"] == run), 0)
