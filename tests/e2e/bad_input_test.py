"""Bad input gets an error that names what was wrong, where, and what to do; nothing is lost or trained by it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ballast
import ballast.spark
from ballast.channel import Connection
from tests.support.cluster import Cluster, binary, patience
from tests.support.models import Transformer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Cluster(tmp_path_factory.mktemp("bad") / "cluster", 1, 1) as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("model") / "transformer.pt")
    ballast.export(Transformer(), path, inputs={"tokens": ("int32", (8,))}, label=("int64", ()))
    return path


def rows(spark: Any, count: int = 64, bad_row: int | None = None, label: str = "long") -> Any:
    data = [(i, [1 + (i + k) % 49 for k in range(7 if i == bad_row else 8)], i % 5 if label == "long" else str(i % 5)) for i in range(count)]
    return spark.createDataFrame(data, f"id long, tokens array<int>, label {label}")


def train(ps: Any, df: Any, model: str, run_id: str, **options: Any) -> Any:
    return ps.train(df, model=model, features=["tokens"], label="label", id_col="id", batch_rows=16, step_rows=32, run_id=run_id, progress=False, **options)


def test_wrong_column_type_is_named_before_anything_starts(spark: Any, cluster: Cluster, model: str) -> None:
    with ballast.spark.connect(cluster.address) as ps, pytest.raises(ballast.BallastError) as error:
        train(ps, rows(spark, label="string"), model, "wrong-type")
    assert error.value.reason == "TYPE_MISMATCH"
    assert '"label"' in str(error.value) and "string" in str(error.value) and "int64" in str(error.value)
    assert cluster.ctl("run", "show", "wrong-type", check=False).returncode == 3


def test_wrong_shape_names_column_partition_and_first_row(spark: Any, cluster: Cluster, model: str) -> None:
    with ballast.spark.connect(cluster.address) as ps, pytest.raises(ballast.BallastError) as error:
        train(ps, rows(spark, bad_row=37), model, "wrong-shape")
    assert error.value.reason == "SHAPE_MISMATCH"
    text = str(error.value)
    assert '"tokens"' in text and "8" in text and "7" in text and "37" in text and "partition" in text
    runs = {r["run"]: r for r in cluster.ctl_json("run", "ls")}
    assert runs.get("wrong-shape", {"rows_trained": 0})["rows_trained"] == 0


def test_missing_column_lists_those_that_exist(spark: Any, cluster: Cluster, model: str) -> None:
    with ballast.spark.connect(cluster.address) as ps, pytest.raises(ballast.BallastError, match="no column .*tokens"):
        train(ps, rows(spark).drop("tokens"), model, "no-column")


def test_server_down_fails_in_seconds_with_address_and_reason() -> None:
    started = time.monotonic()
    with pytest.raises(ballast.BallastError) as error:
        ballast.spark.connect("127.0.0.1:9")
    assert time.monotonic() - started < 15
    assert error.value.reason == "UNREACHABLE" and "127.0.0.1:9" in str(error.value)


def test_same_run_with_another_spec_says_what_differs_and_what_to_do(spark: Any, cluster: Cluster, model: str) -> None:
    with ballast.spark.connect(cluster.address) as ps:
        train(ps, rows(spark), model, "spec")
        with pytest.raises(ballast.BallastError) as error:
            train(ps, rows(spark), model, "spec", optimizer=ballast.SGD(lr=0.5))
        assert error.value.reason == "RUN_SPEC_DIFFERS"
        assert "optimizer" in str(error.value) and "run_id" in str(error.value)
        again = train(ps, rows(spark), model, "spec")
    assert again.rows_trained == 64 and again.resumed


def test_changed_data_under_the_same_run_stops_and_names_partition_and_seq(
    spark: Any, cluster: Cluster, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first driver dies after its rows are trained and before it commits the epoch; the second brings other rows under the same ids."""
    call = Connection.call

    def die_at_commit(connection: Connection, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "CommitEpoch":
            raise KeyboardInterrupt
        return call(connection, method, *arguments, **options)

    with ballast.spark.connect(cluster.address) as ps:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Connection, "call", die_at_commit)
            train(ps, rows(spark), model, "changed", partitions=1)
        assert cluster.ctl_json("run", "show", "changed")["rows_trained"] == 64
        other = rows(spark).selectExpr("id", "transform(tokens, t -> t % 48 + 2) tokens", "label")
        with pytest.raises(ballast.BallastError) as error:
            train(ps, other, model, "changed", partitions=1)
        assert error.value.reason == "FINGERPRINT_DIFFERS", error.value
        assert "partition 0" in str(error.value) and "seq" in str(error.value)
        again = train(ps, rows(spark), model, "changed", partitions=1)
    assert again.rows_trained == 64


class NanForSomeRows(nn.Module):
    """The loss of a batch is NaN when its first token is 13."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.float().mean(1) * self.weight

    @torch.jit.export
    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        poison = torch.where(tokens[:, 0] == 13, float("nan"), 0.0)
        return self.forward(tokens) ** 2 * 1e-4 + poison


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("nan") / "nan.pt")
    ballast.export(NanForSomeRows(), path, inputs={"tokens": ("int32", (2,))}, loss="loss")
    return path


def test_batch_with_nan_loss_is_skipped_on_the_record(spark: Any, cluster: Cluster, poisoned: str) -> None:
    df = spark.createDataFrame([(i, [13 if i == 5 else 1, 2]) for i in range(128)], "id long, tokens array<int>")
    with ballast.spark.connect(cluster.address) as ps:
        result = ps.train(df, model=poisoned, features=["tokens"], id_col="id", batch_rows=8, step_rows=16, partitions=1, run_id="one-nan", progress=False)
        weight = ps.state_dict("one-nan")["weight"]
    assert result.rows_in == 128 == result.rows_trained + result.rows_skipped and result.rows_skipped == 8
    assert torch.isfinite(weight).all()


def test_many_nan_batches_stop_the_run_with_the_reason(spark: Any, cluster: Cluster, poisoned: str) -> None:
    df = spark.createDataFrame([(i, [13, 2]) for i in range(256)], "id long, tokens array<int>")
    with ballast.spark.connect(cluster.address) as ps, pytest.raises(ballast.BallastError) as error:
        ps.train(df, model=poisoned, features=["tokens"], id_col="id", batch_rows=8, step_rows=16, run_id="all-nan", skips_max=3, progress=False, patience_s=20)
    assert "finite" in str(error.value)
    shown = cluster.ctl_json("run", "show", "all-nan")
    assert shown["state"] == "stopped" and "finite" in shown["reason"] and shown["rows_trained"] == 0


def test_port_in_use_is_named(cluster: Cluster, tmp_path: Path) -> None:
    done = subprocess.run([binary("ballast-server"), "--dir", str(tmp_path / "s"), "--listen", cluster.address], capture_output=True, text=True, timeout=patience(60))
    assert done.returncode != 0 and cluster.address.split(":")[1] in done.stdout + done.stderr


def test_data_directory_of_another_server_is_refused(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster", 1, 0):
        pass
    done = subprocess.run(
        [binary("ballast-server"), "--dir", str(tmp_path / "cluster" / "server-0"), "--index", "1", "--servers", "2", "--coordinator", "127.0.0.1:1", "--listen", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=patience(60),
    )  # fmt: skip
    assert done.returncode == 5 and "server-0" in done.stdout + done.stderr


def test_file_that_is_no_model_is_refused_at_the_client(spark: Any, cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(b"not a model")
    with ballast.spark.connect(cluster.address) as ps, pytest.raises(ballast.BallastError) as error:
        train(ps, rows(spark), str(path), "no-model")
    assert error.value.reason == "MODEL_INVALID" and "ballast.export" in str(error.value)
