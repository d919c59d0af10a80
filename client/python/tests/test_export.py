"""ballast.export with real torch: what is written down about a module, and what is refused."""

from __future__ import annotations

import pathlib
from typing import Optional

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ballast  # noqa: E402
from ballast.errors import BallastError  # noqa: E402
from ballast.model import read_model, same_program  # noqa: E402
from ballast.weights import encode_weights  # noqa: E402

nn = torch.nn


class Tied(nn.Module):
    """Shared weights, BatchNorm buffers, a frozen parameter, a buffer outside the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(10, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.emb.weight
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("scale", torch.full((1,), 2.0), persistent=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.emb(x).mean(1)) * self.frozen * self.scale)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.zeros(5))

    def forward(self, slot: torch.Tensor) -> torch.Tensor:
        return self.slots[slot.long()]

    def per_row(self, slot: torch.Tensor) -> torch.Tensor:
        return -self.slots[slot.long()]

    def scalar(self, slot: torch.Tensor) -> torch.Tensor:
        return self.slots[slot.long()].sum()

    def wrong(self, slot: torch.Tensor) -> torch.Tensor:
        return self.slots[slot.long()].unsqueeze(1)


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.good = nn.Linear(2, 2)
        self.bad = Unscriptable()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bad(self.good(x))


class Unscriptable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return eval("x")


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: Optional[torch.Tensor] = None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x) + y, self.b(x)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "model.pt")


def reason(call: object, *args: object, **more: object) -> str:
    with pytest.raises(BallastError) as error:
        call(*args, **more)  # type: ignore[operator]
    return f"{error.value.reason}: {error.value.message}"


def test_tensors_are_described_once_with_their_rules(path: str) -> None:
    ballast.export(Tied(), path, {"x": ("int32", (3,))}, label=("int64", ()), outputs=["logits"])
    model = read_model(path).description
    by_name = {t.name: t for t in model.tensors}
    assert list(by_name) == [
        "frozen", "scale", "seen", "emb.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked",
    ]  # fmt: skip
    assert by_name["emb.weight"].aliases == ("head.weight",)
    rules = {n: t.rule for n, t in by_name.items()}
    assert rules["emb.weight"] == "OPT" and rules["frozen"] == "SET" and rules["scale"] == "MEAN" and rules["seen"] == "SET"
    assert rules["norm.running_mean"] == "MEAN" and rules["norm.num_batches_tracked"] == "SET"
    assert not by_name["scale"].persistent and by_name["seen"].dtype == "bool" and not by_name["frozen"].requires_grad
    assert model.schema == "x:int32[3],label:int64"
    assert (model.outputs[0].name, model.outputs[0].shape) == ("logits", (10,))


def test_module_is_left_as_it_was(path: str) -> None:
    module = Tied()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    random = torch.get_rng_state()
    module.eval()
    ballast.export(module, path, {"x": ("int32", (3,))}, label=("int64", ()))
    assert not module.training
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    loaded = torch.jit.load(path)
    for name, value in loaded.state_dict().items():
        if name in before:
            assert torch.equal(value, before[name])


def test_second_export_is_the_same_program_with_other_weights(tmp_path: pathlib.Path) -> None:
    contents = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        file = tmp_path / f"m{seed}.pt"
        ballast.export(Tied(), file, {"x": ("int32", (3,))}, label=("int64", ()))
        contents.append(file.read_bytes())
    other = tmp_path / "c.pt"
    ballast.export(Counter(), other, {"slot": "int64"}, loss="per_row")
    assert contents[0] != contents[1] and same_program(*contents)
    assert not same_program(contents[0], other.read_bytes())


def test_loss_method_gets_inputs_and_needs_no_decorator(path: str) -> None:
    ballast.export(Counter(), path, {"slot": "int64"}, loss="per_row")
    assert read_model(path).description.loss == "method:per_row"
    assert torch.jit.load(path).per_row(torch.tensor([1, 2])).shape == (2,)


def test_scalar_loss_is_refused_with_what_to_do(path: str) -> None:
    text = reason(ballast.export, Counter(), path, {"slot": "int64"}, loss="scalar")
    assert text.startswith("SCALAR_LOSS") and "per row" in text and 'reduction="none"' in text


def test_loss_of_another_shape_is_refused(path: str) -> None:
    assert reason(ballast.export, Counter(), path, {"slot": "int64"}, loss="wrong").startswith("LOSS_SHAPE")


def test_smallest_part_that_does_not_script_is_named(path: str) -> None:
    text = reason(ballast.export, Broken(), path, {"x": ("float32", (2,))}, label=("int64", ()))
    assert text.startswith("SCRIPT_FAILED") and '"bad" (Unscriptable)' in text


def test_forward_that_fails_is_told_with_the_shapes(path: str) -> None:
    text = reason(ballast.export, nn.Linear(3, 2), path, {"x": ("float32", (4,))}, label=("int64", ()))
    assert text.startswith("EXAMPLE_FAILED") and "x: float32[4]" in text


def test_tuple_outputs_and_several_inputs(path: str) -> None:
    inputs = {"x": ("float32", (3,)), "y": (torch.float32, (2,))}
    ballast.export(TwoOutputs(), path, inputs, label={"target": ("float32", (2,))}, loss="mse", outputs=["sum", "b"])
    model = read_model(path).description
    assert [(o.name, o.shape) for o in model.outputs] == [("sum", (2,)), ("b", (1,))]
    assert model.label is not None and model.label.name == "target"


@pytest.mark.parametrize("label", [("float32", ()), ("int64", (1,)), ("bool", ())])
def test_bce_label_takes_the_outputs_shape(path: str, label: object) -> None:
    ballast.export(nn.Linear(3, 1), path, {"x": ("float32", (3,))}, label=label, loss="bce_with_logits")


class RunningScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.scale.mul_(0.9)
        return self.linear(x) * self.scale


class Forgetful(nn.Module):
    """Its backward needs a value that forward has overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.sigmoid(self.linear(x))
        z = y * 2
        y.add_(1)
        return z + y


def test_forward_that_changes_a_parameter_is_refused(path: str) -> None:
    embedding = nn.Sequential(nn.Embedding(5, 4, max_norm=0.1), nn.Flatten(), nn.Linear(12, 2))
    text = reason(ballast.export, embedding, path, {"x": ("int32", (3,))}, label=("int64", ()))
    assert text.startswith("PARAMETER_CHANGED") and '"0" (Embedding)' in text and "max_norm" in text
    text = reason(ballast.export, RunningScale(), path, {"x": ("float32", (3,))}, label=("int64", ()))
    assert text.startswith("PARAMETER_CHANGED") and '"scale"' in text


def test_backward_is_tried_too(path: str) -> None:
    text = reason(ballast.export, Forgetful(), path, {"x": ("float32", (3,))}, label=("int64", ()))
    assert text.startswith("EXAMPLE_FAILED: backward")


def test_inputs_without_names_are_told(path: str) -> None:
    assert reason(ballast.export, nn.Linear(3, 2), path, [("float32", (3,))], label=("int64", ())).startswith("BAD_SPEC: inputs=")


def test_class_labels_may_travel_as_floats(path: str) -> None:
    ballast.export(nn.Linear(3, 2), path, {"x": ("float32", (3,))}, label=("float64", ()))


def test_views_of_one_memory_are_refused(path: str) -> None:
    module = nn.Linear(3, 3)
    module.other = nn.Parameter(module.weight.t())
    assert reason(ballast.export, module, path, {"x": ("float32", (3,))}, label=("int64", ())).startswith("TENSOR_UNSUPPORTED")


def test_no_model_file_is_told(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"no zip")
    assert reason(read_model, str(tmp_path / "x.pt")).startswith("MODEL_INVALID")
    assert reason(read_model, str(tmp_path / "missing.pt")).startswith("MODEL_INVALID")
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), str(tmp_path / "plain.pt"))
    assert "ballast.json" in reason(read_model, str(tmp_path / "plain.pt"))


def test_initial_weights_load_with_safetensors(path: str) -> None:
    load = pytest.importorskip("safetensors.numpy").load
    module = Tied()
    ballast.export(module, path, {"x": ("int32", (3,))}, label=("int64", ()))
    weights = load(encode_weights(module.state_dict(), read_model(path)))
    assert set(weights) == {t.name for t in read_model(path).description.tensors}
    np.testing.assert_array_equal(weights["emb.weight"], module.emb.weight.detach().numpy())
    assert weights["seen"].dtype == np.int64 and weights["scale"].tolist() == [2.0]


def test_initial_weights_that_do_not_fit_are_named(path: str) -> None:
    module = Tied()
    ballast.export(module, path, {"x": ("int32", (3,))}, label=("int64", ()))
    state = dict(module.state_dict())
    del state["norm.bias"]
    state["extra"] = torch.zeros(1)
    text = reason(encode_weights, state, read_model(path))
    assert "norm.bias" in text and "extra" in text
