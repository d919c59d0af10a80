"""train() and score() with real PySpark against a peer on real gRPC."""

from __future__ import annotations

import io
import pathlib
import threading
from typing import Any

import numpy as np
import pytest
from peer import Peer

import ballast
import ballast.spark
from ballast.errors import BallastError
from ballast.model import Column
from ballast.spark.columns import Source
from ballast.spark.epoch import epoch_frame, partition_of
from ballast.spark.jobs import cancel
from ballast.spark.progress import Progress

SOURCES = [Source(Column("x", "float32", (2,)), "x", False), Source(Column("label", "int64", ()), "y", False)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    path = str(tmp_path_factory.mktemp("model") / "linear.pt")
    ballast.export(torch.nn.Linear(2, 3), path, {"x": ("float32", (2,))}, label=("int64", ()), outputs=["logits"])
    return path


@pytest.fixture(scope="module")
def df(spark: Any) -> Any:
    return spark.range(0, 500, 1, 5).selectExpr("id", "array(cast(id as float), cast(1 as float)) as x", "cast(id % 3 as int) as y").cache()


def rows_of(frame: Any) -> list[tuple[int, int]]:
    """(partition, id) in order."""

    def look(incoming: Any) -> Any:
        import pyarrow as pa
        from pyspark import TaskContext

        partition = TaskContext.get().partitionId()
        for batch in incoming:
            ids = batch.column(batch.num_columns - 1)
            yield pa.RecordBatch.from_arrays([pa.array([partition] * len(ids), pa.int32()), ids], names=["p", "id"])

    return [(r["p"], r["id"]) for r in frame.mapInArrow(look, "p int, id long").collect()]


def trained_ids(peer: Peer, epoch: int) -> list[int]:
    ids = []
    for (e, _, _), rows in sorted(peer.ledger.trained.items(), key=lambda item: item[0]):
        if e == epoch:
            ids += np.frombuffer(rows.columns[0].data, dtype="<f4").reshape(-1, 2)[:, 0].astype(int).tolist()
    return ids


def train(peer: Peer, df: Any, model: str, **changes: Any) -> Any:
    settings: dict[str, Any] = dict(
        features=["x"], label="y", id_col="id", batch_rows=16, step_rows=32, partitions=4, run_id="r1", progress=False, patience_s=20.0
    )
    with ballast.spark.connect(peer.address) as cluster:
        return cluster.train(df, model, **{**settings, **changes})


def test_order_depends_on_ids_seed_and_epoch_only(spark: Any, df: Any) -> None:
    reference = rows_of(epoch_frame(df, SOURCES, "id", 7, 1, 4))
    assert sorted(i for _, i in reference) == list(range(500))
    assert {p for p, _ in reference} == {0, 1, 2, 3}
    for other in (df.repartition(11), df.coalesce(1).orderBy("y"), df):
        assert rows_of(epoch_frame(other, SOURCES, "id", 7, 1, 4)) == reference
    assert rows_of(epoch_frame(df, SOURCES, "id", 7, 2, 4)) != reference
    assert rows_of(epoch_frame(df, SOURCES, "id", 8, 1, 4)) != reference


def test_partition_is_known_without_a_shuffle(df: Any) -> None:
    told = {r["id"]: r["p"] for r in df.select("id", partition_of("id", 7, 1, 4).alias("p")).collect()}
    assert all(told[i] == p for p, i in rows_of(epoch_frame(df, SOURCES, "id", 7, 1, 4)))


def test_each_row_is_trained_once_an_epoch(df: Any, model: str) -> None:
    with Peer(workers=2) as peer:
        result = train(peer, df, model, epochs=2)
        for epoch in (1, 2):
            assert sorted(trained_ids(peer, epoch)) == list(range(500))
        assert trained_ids(peer, 1) != trained_ids(peer, 2)
        assert (result.rows_in, result.rows_trained, result.epochs) == (1000, 1000, 2) and result.complete
        assert "rows in 1,000 = rows trained 1,000" in str(result)
        assert all(w.opens for w in peer.workers)
        spec = peer.control.runs["r1"]
        assert spec.schema == "x:float32[2],label:int64" and [t.name for t in spec.tensors] == ["weight", "bias"]
        assert all(r.rows == 16 for (e, p, s), r in peer.ledger.trained.items() if (e, p, s + 2) in peer.ledger.trained)


def test_same_run_again_is_complete_and_a_longer_one_resumes(df: Any, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Peer() as peer:
        train(peer, df, model)
        sent = len(peer.ledger.trained)
        uploads = peer.control.uploads
        result = train(peer, df, model, progress=True)
        assert "nothing to do" in capsys.readouterr().err
        assert result.complete and len(peer.ledger.trained) == sent and peer.control.uploads == uploads and len(peer.control.begun) == 1


def test_crashed_driver_resumes_inside_the_epoch(df: Any, model: str) -> None:
    with Peer() as peer:
        train(peer, df, model)
        del peer.ledger.committed[1]
        for key in [k for k in peer.ledger.trained if k[2] >= 3]:
            del peer.ledger.trained[key]
            del peer.ledger.by_partition[key[:2]][key[2]]
        result = train(peer, df, model)
        assert result.complete and result.resumed and result.duplicates_dropped >= 3 * 4 - 4
        assert sorted(trained_ids(peer, 1)) == list(range(500))


def test_changed_data_under_the_same_run_stops(df: Any, model: str) -> None:
    with Peer() as peer:
        train(peer, df, model)
        del peer.ledger.committed[1]
        with pytest.raises(BallastError) as error:
            train(peer, df.selectExpr("id", "x", "y + 1 as y"), model)
        assert error.value.reason == "FINGERPRINT_DIFFERS" and "partition" in str(error.value) and "Traceback" not in str(error.value)


def test_missing_batch_is_fed_again(df: Any, model: str) -> None:
    with Peer() as peer:
        peer.control.forget_at_commit = (1, 2, 1)
        result = train(peer, df, model)
        assert result.complete and sorted(trained_ids(peer, 1)) == list(range(500))


def test_dead_worker_costs_no_row(df: Any, model: str) -> None:
    with Peer(workers=2) as peer:
        peer.workers[0].break_after = 3
        assert train(peer, df, model).complete
        assert sorted(trained_ids(peer, 1)) == list(range(500))


def test_wrong_type_is_refused_before_anything_starts(df: Any, model: str) -> None:
    with Peer() as peer:
        with pytest.raises(BallastError) as error:
            train(peer, df.selectExpr("id", "cast(id as string) as x", "y"), model)
        assert error.value.reason == "TYPE_MISMATCH"
        assert error.value.metadata == {"column": "x", "expected": "float32[2]", "found": "string"}
        assert peer.control.runs == {}


@pytest.mark.parametrize("check_data", [True, False])
def test_wrong_row_is_named_with_partition_and_id(df: Any, model: str, check_data: bool) -> None:
    wrong = df.selectExpr("id", "if(id = 321, array(float(1)), x) as x", "y")
    with Peer() as peer:
        with pytest.raises(BallastError) as error:
            train(peer, wrong, model, check_data=check_data)
        facts = error.value.metadata
        assert error.value.reason == "SHAPE_MISMATCH"
        assert (facts["column"], facts["expected"], facts["found"], facts["row_id"]) == ("x", "float32[2]", "an array of 1 elements", "321")
        assert facts["partition"] == str(wrong.filter("id = 321").select(partition_of("id", 0, 1, 4)).collect()[0][0])
        assert 321 not in trained_ids(peer, 1) and 1 not in peer.ledger.committed
        if check_data:
            assert peer.ledger.trained == {}


def test_ids_are_required_for_exactly_once(df: Any, model: str) -> None:
    with Peer() as peer:
        with pytest.raises(BallastError) as error:
            train(peer, df, model, id_col=None)
        assert error.value.reason == "ID_MISSING"
        result = train(peer, df, model, id_col=None, delivery="at_least_once")
        assert result.complete and peer.control.runs["r1"].at_least_once
        assert {r.fingerprint for r in peer.ledger.trained.values()} == {0}


def test_duplicate_ids_are_reported(df: Any, model: str) -> None:
    with Peer() as peer:
        result = train(peer, df.selectExpr("id div 2 as id", "x", "y"), model)
        assert result.duplicate_ids == 250 and "share an id" in str(result)


@pytest.mark.parametrize(
    "ids",
    ["cast(id as decimal(20,2)) - 3", "uuid(7)", "-id", "encode(cast(id as string), 'utf-8')", "timestamp_micros(id)", "date_add(date'2026-01-01', cast(id as int))"],
)
def test_columns_may_have_any_name_and_ids_many_types(df: Any, model: str, ids: str) -> None:
    odd = df.selectExpr(f"{ids} as `an id.é`", "x as `my.x col`", "cast(y as smallint) as `y``s`")
    odd = odd.localCheckpoint() if ids.startswith("uuid") and hasattr(odd, "localCheckpoint") else odd
    with Peer() as peer:
        result = train(peer, odd, model, features=["my.x col"], label="y`s", id_col="an id.é")
        assert result.complete and result.duplicate_ids == 0
        assert sorted(trained_ids(peer, 1)) == list(range(500))


def test_one_row_and_empty_partitions_are_a_run(df: Any, model: str) -> None:
    with Peer() as peer:
        result = train(peer, df.filter("id = 7"), model, partitions=8)
        assert (result.rows_in, result.rows_trained) == (1, 1)


def test_no_rows_are_told_before_a_run_is_made(df: Any, model: str) -> None:
    with Peer() as peer:
        with pytest.raises(BallastError) as error:
            train(peer, df.filter("id < 0"), model)
        assert error.value.reason == "NO_ROWS" and peer.control.runs == {}


@pytest.mark.parametrize("bad", [{"seed": -1}, {"epochs": 1.5}, {"staleness_max": -1}, {"skips_max": -1}, {"lease_s": -1.0}, {"batch_rows": True}])
def test_numbers_out_of_range_are_named(df: Any, model: str, bad: dict[str, Any]) -> None:
    with Peer() as peer:
        with pytest.raises(BallastError) as error:
            train(peer, df, model, **bad)
        ((name, value),) = bad.items()
        assert error.value.reason == "BAD_SPEC" and f"{name}={value}" in str(error.value)


def test_other_spec_under_the_same_run_is_refused(df: Any, model: str) -> None:
    with Peer() as peer:
        train(peer, df, model)
        with pytest.raises(BallastError) as error:
            train(peer, df, model, seed=1)
        assert error.value.reason == "RUN_SPEC_DIFFERS" and error.value.code == "FAILED_PRECONDITION"


def test_model_exported_again_resumes(df: Any, model: str, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    with Peer() as peer:
        train(peer, df, model)
        again = str(tmp_path / "again.pt")
        ballast.export(torch.nn.Linear(2, 3), again, {"x": ("float32", (2,))}, label=("int64", ()), outputs=["logits"])
        assert train(peer, df, again).complete


def test_fault_of_a_worker_reaches_the_driver_as_one_error(df: Any, model: str) -> None:
    from ballast.v1 import worker_pb2

    with Peer() as peer:
        peer.workers[0].fault = worker_pb2.FeedDown.Fault(reason="RUN_STOPPED", message="8 batches in a row were skipped", metadata={"k": "v"})
        with pytest.raises(BallastError) as error:
            train(peer, df, model)
        assert error.value.reason == "RUN_STOPPED" and error.value.metadata["k"] == "v" and "Traceback" not in str(error.value)


def test_cancelled_job_leaves_the_run_resumable(spark: Any, df: Any, model: str) -> None:
    import os

    with Peer() as peer:
        peer.workers[0].mute_after = 0
        timer = threading.Timer(4.0, cancel, (spark, f"ballast-r1-{os.getpid()}"))
        timer.start()
        with pytest.raises(BallastError) as error:
            train(peer, df, model, stall_s=60.0, patience_s=60.0)
        timer.join()
        assert error.value.reason == "CANCELLED" and "resumes" in str(error.value)
        peer.workers[0].mute_after = None
        assert train(peer, df, model).complete
        assert sorted(trained_ids(peer, 1)) == list(range(500))


def test_unreachable_server_is_told_within_seconds() -> None:
    import socket
    import time

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(BallastError) as error:
            ballast.spark.connect(address)
        assert error.value.reason == "UNREACHABLE" and address in str(error.value) and time.monotonic() - started < 8


def test_progress_is_plain_off_a_terminal(df: Any) -> None:
    from ballast.v1 import run_pb2

    progress = Progress(None, "r", 1000, 2, io.StringIO())
    run = run_pb2.Run(rows_trained=100, steps=1, loss=1.5)
    progress.line(run, 10.0)
    run.rows_trained = 300
    assert progress.line(run, 14.0) == "r: epoch 1/2  300/1,000 rows  50 rows/s  loss 1.5000  14s left"
