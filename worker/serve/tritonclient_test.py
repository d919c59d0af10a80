"""Scores with `tritonclient`, a client that knows nothing of Ballast, and compares with the scripted modules in eager mode."""

import subprocess
import sys

import numpy as np
import torch
import tritonclient.grpc as triton

MODELS = "worker/model/testdata"


def expect_error(part, call):
    try:
        call()
    except triton.InferenceServerException as e:
        assert part in str(e), e
    else:
        raise AssertionError(f"no error: {part}")


def scores(client, run, name, datatype, array, **more):
    given = triton.InferInput(name, array.shape, datatype)
    given.set_data_from_numpy(array)
    return client.infer(run, [given], **more)


def main():
    server = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.stdout.readline().strip()}")
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("transformer") and client.is_model_ready("transformer", "3")
        assert not client.is_model_ready("gru") and not client.is_model_ready("none") and not client.is_model_ready("transformer", "4")
        metadata = client.get_model_metadata("transformer", as_json=True)
        assert metadata["versions"] == ["12", "3"], metadata
        assert metadata["inputs"] == [{"name": "tokens", "datatype": "INT32", "shape": ["-1", "8"]}], metadata

        rng = np.random.default_rng(5)
        tokens = rng.integers(1, 50, (64, 8), dtype=np.int32)
        tokens[:, 6:] = 0
        answer = scores(client, "transformer", "tokens", "INT32", tokens)
        with torch.no_grad():
            expected = torch.jit.load(f"{MODELS}/transformer.pt").eval()(torch.from_numpy(tokens)).numpy()
        np.testing.assert_allclose(answer.as_numpy("output"), expected, rtol=1e-5, atol=1e-6)
        assert answer.get_response().model_version == "12"

        x = rng.standard_normal((3, 6)).astype(np.float32)
        answer = scores(client, "buffers", "x", "FP32", x, outputs=[triton.InferRequestedOutput("centred")], request_id="a")
        with torch.no_grad():
            expected = torch.jit.load(f"{MODELS}/buffers.pt").eval()(torch.from_numpy(x))["centred"].numpy()
        np.testing.assert_allclose(answer.as_numpy("centred"), expected, rtol=1e-5)
        assert answer.as_numpy("prediction") is None and answer.get_response().id == "a"

        expect_error("expected INT32", lambda: scores(client, "transformer", "tokens", "INT64", tokens.astype(np.int64)))
        expect_error("no checkpoint yet", lambda: scores(client, "gru", "tokens", "INT32", tokens))
        expect_error("no run none", lambda: scores(client, "none", "tokens", "INT32", tokens))
        expect_error("index out of range", lambda: scores(client, "transformer", "tokens", "INT32", tokens + 1000))
    finally:
        server.stdin.close()
        assert server.wait(timeout=60) == 0


if __name__ == "__main__":
    main()
