"""Serving with no client of ours, export, and the same predictions everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ballast
import ballast.spark
from ballast.channel import Connection
from ballast.runs import get_run
from tests.support.cluster import Cluster
from tests.support.feeder import FeederJob, export_counter
from tests.support.models import BatchNormMlp, Gru
from tests.support.rows import CounterRows

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROWS = 256


@pytest.fixture(scope="module")
def trained(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cluster with two trained runs: "mlp" (BatchNorm) and "gru" (shared weights)."""
    folder = tmp_path_factory.mktemp("scoring")
    tokens = np.random.default_rng(1).integers(1, 50, (ROWS, 8), dtype=np.int32)
    with Cluster(folder / "cluster", 2, 2) as cluster, ballast.spark.connect(cluster.address) as ps:
        for name, module, classes in (("mlp", BatchNormMlp(), 5), ("gru", Gru(), 50)):
            model = str(folder / f"{name}.pt")
            ballast.export(module, model, inputs={"tokens": ("int32", (8,))}, label=("int64", ()), outputs=["logits"])
            df = spark.createDataFrame([(i, t, sum(t) % classes) for i, t in enumerate(tokens.tolist())], "id long, tokens array<int>, label long")
            ps.train(df, model=model, features=["tokens"], label="label", id_col="id", batch_rows=16, step_rows=32, run_id=name, progress=False)
        yield cluster, ps, df, tokens


def newest_checkpoint(ps: Any) -> int:
    with Connection(ps.address) as connection:
        return int(get_run(connection, "gru").manifest_version)


def expected_logits(ps: Any, run: str, module: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    module.load_state_dict(ps.state_dict(run))
    module.eval()
    with torch.no_grad():
        return module(torch.from_numpy(tokens)).numpy()


def test_tritonclient_scores_without_code_of_ours(trained: Any) -> None:
    import tritonclient.grpc as triton

    cluster, ps, _, tokens = trained
    expected = expected_logits(ps, "mlp", BatchNormMlp(), tokens)
    client = triton.InferenceServerClient(cluster.workers[0].address)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("mlp")
    metadata = client.get_model_metadata("mlp")
    assert [i.name for i in metadata.inputs] == ["tokens"] and metadata.inputs[0].datatype == "INT32" and list(metadata.inputs[0].shape) == [-1, 8]
    given = triton.InferInput("tokens", list(tokens.shape), "INT32")
    given.set_data_from_numpy(tokens)
    answer = client.infer("mlp", [given])
    np.testing.assert_allclose(answer.as_numpy("logits"), expected, rtol=1e-5, atol=1e-5)
    assert answer.get_response().model_version == metadata.versions[0]
    client.close()


def test_tritonclient_is_told_what_is_wrong(trained: Any, tmp_path: Path) -> None:
    import tritonclient.grpc as triton

    cluster, _, _, tokens = trained
    client = triton.InferenceServerClient(cluster.workers[0].address)
    assert not client.is_model_ready("nobody")
    wrong = triton.InferInput("tokens", [4, 7], "INT32")
    wrong.set_data_from_numpy(tokens[:4, :7].copy())
    with pytest.raises(Exception, match=r"tokens.*8.*7|tokens.*7.*8"):
        client.infer("mlp", [wrong])
    with pytest.raises(Exception, match=r"no manifest of version 999999"):
        client.infer("mlp", [wrong], model_version="999999")
    FeederJob(cluster.address, "not-trained", export_counter(tmp_path / "counter.pt", 4), CounterRows(4, 4, 4)).create()
    assert not client.is_model_ready("not-trained")
    with pytest.raises(Exception, match=r"no checkpoint yet"):
        client.infer("not-trained", [wrong])
    client.close()


@pytest.mark.parametrize("source", ["newest checkpoint", "checkpoint", "state dict"])
def test_a_run_starts_from_other_weights(trained: Any, tmp_path: Path, source: str) -> None:
    """A step with learning rate 0 changes nothing: what the run holds then is what it began with."""
    _, ps, df, _ = trained
    torch.manual_seed(99)
    other = Gru().state_dict()
    begin = {"newest checkpoint": "gru", "checkpoint": f"gru@{newest_checkpoint(ps)}", "state dict": other}[source]
    expected = other if source == "state dict" else ps.state_dict("gru")
    model = str(tmp_path / "gru.pt")
    ballast.export(Gru(), model, inputs={"tokens": ("int32", (8,))}, label=("int64", ()))
    run = f"from-{source.replace(' ', '-')}"
    result = ps.train(
        df.filter("id < 64"), model=model, features=["tokens"], label="label", id_col="id", batch_rows=16, step_rows=32, partitions=2, run_id=run, init=begin,
        optimizer=ballast.SGD(lr=0.0), progress=False,
    )  # fmt: skip
    assert result.steps >= 2
    got = ps.state_dict(run)
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


def test_a_run_cannot_start_from_what_is_not_there(trained: Any, tmp_path: Path) -> None:
    _, ps, df, _ = trained
    model = str(tmp_path / "gru.pt")
    ballast.export(Gru(), model, inputs={"tokens": ("int32", (8,))}, label=("int64", ()))
    for begin, text in (("nobody", "nobody"), ("gru@999999", "999999"), ({"out.bias": torch.zeros(50)}, "lacks"), (BatchNormMlp().state_dict(), "has no")):
        with pytest.raises(ballast.BallastError, match=text):
            ps.train(df, model=model, features=["tokens"], label="label", id_col="id", run_id="from-nothing", progress=False, init=begin)
    with pytest.raises(ballast.BallastError, match="no run"):
        ps.state_dict("from-nothing")


def test_spark_scores_every_row_as_the_state_dict_does(trained: Any) -> None:
    _, ps, df, tokens = trained
    expected = expected_logits(ps, "gru", Gru(), tokens)
    scored = ps.score(df, run="gru", feed={"tokens": "tokens"}, fetch={"logits": "logits"}).orderBy("id").collect()
    np.testing.assert_allclose(np.array([r["logits"] for r in scored]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("run, build", [("mlp", BatchNormMlp), ("gru", Gru)])
def test_export_loads_with_safetensors_and_predicts_the_same(trained: Any, tmp_path: Path, run: str, build: Any) -> None:
    from safetensors.torch import load_file

    cluster, ps, _, tokens = trained
    cluster.ctl("ckpt", "verify", run)
    cluster.ctl("ckpt", "export", run, "-o", str(tmp_path))
    module = build()
    state = load_file(str(tmp_path / "model.safetensors"))
    assert {k: (v.dtype, v.shape) for k, v in state.items()} == {k: (v.dtype, v.shape) for k, v in module.state_dict().items()}
    expected = expected_logits(ps, run, build(), tokens)
    module.load_state_dict(state)
    module.eval()
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(tokens)).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_ballastctl_shows_runs_and_checkpoints(trained: Any) -> None:
    cluster, *_ = trained
    runs = {r["run"]: r for r in cluster.ctl_json("run", "ls")}
    assert runs["mlp"]["rows_trained"] == ROWS and runs["mlp"]["epochs"][0]["rows_in"] == ROWS
    shown = cluster.ctl_json("ckpt", "show", "mlp")
    assert all(t["nonfinite"] == 0 for t in shown["tensors"]) and len(shown["tensors"]) == 10
    assert cluster.ctl("run", "show", "nobody", check=False).returncode == 3
    assert cluster.ctl("ckpt", "show", "mlp@999999", check=False).returncode == 3
