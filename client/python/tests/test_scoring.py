"""score() and eval_df against workers that speak the protocol with tritonclient's own messages."""

from __future__ import annotations

import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from peer import Peer

import ballast
import ballast.spark
from ballast.errors import BallastError
from ballast.inference import InferenceClient
from ballast.model import Column
from ballast.spark.evaluate import measure

triton = pytest.importorskip("tritonclient.grpc")


class Inference:
    """Serves the model y = [x0 - x1, x1]; can be told to be unavailable."""

    def __init__(self) -> None:
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        self.pb = service_pb2
        self.requests: list[Any] = []
        self.unavailable = 0
        outer = self

        class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
            def ModelInfer(self, request: Any, context: Any) -> Any:
                return outer.infer(request, context)

        self.server = grpc.server(ThreadPoolExecutor(max_workers=8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def infer(self, request: Any, context: Any) -> Any:
        if self.unavailable:
            self.unavailable -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "loading")
        self.requests.append(request)
        x = np.frombuffer(request.raw_input_contents[0], dtype="<f4").reshape(tuple(request.inputs[0].shape))
        y = np.stack([x[:, 0] - x[:, 1], x[:, 1]], axis=1).astype("<f4")
        response = self.pb.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        response.outputs.add(name="logits", datatype="FP32", shape=y.shape)
        response.raw_output_contents.append(y.tobytes())
        return response


@pytest.fixture
def serving() -> Any:
    inference = Inference()
    yield inference
    inference.server.stop(0).wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch = pytest.importorskip("torch")
    path: pathlib.Path = tmp_path_factory.mktemp("model") / "linear.pt"
    ballast.export(torch.nn.Linear(2, 2), path, {"x": ("float32", (2,))}, label=("int64", ()), outputs=["logits"])
    return str(path)


def trained(peer: Peer, df: Any, model: str, **more: Any) -> Any:
    cluster = ballast.spark.connect(peer.address)
    result = cluster.train(df, model, ["x"], "y", id_col="id", batch_rows=16, partitions=2, run_id="r", progress=False, patience_s=20.0, **more)
    return cluster, result


@pytest.fixture(scope="module")
def df(spark: Any) -> Any:
    return spark.range(0, 60, 1, 3).selectExpr("id", "array(double(id), double(30)) as x", "int(id % 2) as y", "'t' as kept")


def test_client_and_tritonclient_share_a_process(serving: Inference) -> None:
    x = np.array([[3.0, 1.0]], dtype="<f4")
    client = InferenceClient(serving.address)
    out = client.infer("m", "7", [(Column("x", "float32", (2,)), x)], ["logits"])
    assert out["logits"].tolist() == [[2.0, 1.0]]
    request = serving.requests[0]
    assert (request.model_name, request.model_version, request.inputs[0].datatype, list(request.inputs[0].shape)) == ("m", "7", "FP32", [1, 2])
    assert request.outputs[0].name == "logits"
    client.close()


def test_predictions_become_columns(serving: Inference, df: Any, model: str) -> None:
    with Peer() as peer:
        cluster, result = trained(peer, df, model)
        peer.control.workers = [serving.address]
        scored = cluster.score(df, result, feed={"x": "x"}, fetch={"logits": "p"}, batch_rows=7)
        assert scored.columns == ["id", "x", "y", "kept", "p"] and scored.schema["p"].dataType.simpleString() == "array<float>"
        rows = scored.collect()
        assert len(rows) == 60 and all(r["p"] == [r["id"] - 30.0, 30.0] and r["kept"] == "t" for r in rows)
        assert {r.model_version for r in serving.requests} == {"3"} and max(r.inputs[0].shape[0] for r in serving.requests) <= 7
        cluster.close()


def test_another_worker_scores_when_one_does_not(serving: Inference, df: Any, model: str) -> None:
    with Peer() as peer:
        cluster, _ = trained(peer, df, model)
        peer.control.workers = ["127.0.0.1:1", serving.address]
        serving.unavailable = 1
        assert cluster.score(df, "r@3", feed=["x"], fetch={"logits": "p"}, patience_s=20.0).count() == 60
        cluster.close()


def test_held_out_rows_are_evaluated(serving: Inference, df: Any, model: str) -> None:
    with Peer() as peer:
        held_out = df.selectExpr("id", "x", "int(id >= 45) as y")  # predictions are id - 30 and 30: always 1
        trained(peer, df, model)[0].close()
        peer.control.workers = [serving.address]
        cluster, result = trained(peer, df, model, eval_df=held_out)  # complete already: only evaluates
        assert (result.accuracy, result.eval_rows) == (0.25, 60) and "accuracy 0.2500 on 60 rows" in str(result)
        cluster.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fetch": {"nothing": "p"}}, "COLUMN_MISSING"),
        ({"fetch": {"logits": "kept"}}, "COLUMN_EXISTS"),
        ({"feed": {"x": "kept"}}, "TYPE_MISMATCH"),
        ({"run": "unknown"}, "NO_RUN"),
        ({"run": "r@live"}, "BAD_SPEC"),
    ],
)
def test_mistakes_are_told_before_the_job(df: Any, model: str, changes: dict[str, Any], reason: str) -> None:
    with Peer() as peer:
        cluster, _ = trained(peer, df, model)
        with pytest.raises(BallastError) as error:
            cluster.score(df, **{"run": "r", "feed": {"x": "x"}, "fetch": {"logits": "p"}, **changes})
        assert error.value.reason == reason
        cluster.close()


def test_measures() -> None:
    assert measure("cross_entropy", np.array([[0.1, 0.9], [0.8, 0.2], [np.nan, 1.0]]), np.array([1, 1, 1])) == 1
    assert measure("bce_with_logits", np.array([[1.0], [-1.0]]), np.array([1, 1])) == 1
    assert measure("mse", np.array([[1.0, 3.0]]), np.array([[0.0, 0.0]])) == 5
