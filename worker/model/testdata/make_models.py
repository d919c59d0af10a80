"""Makes the models of model_test.cc and, with eager PyTorch, what each must compute.

    make_models.py OUT    writes OUT/<case>.pt (by ballast.export) and OUT/<case>.safetensors

Tensors of a case: init.<tensor> (values in the file), value.<tensor> (other values, to train and score from), b<i>.<column> (batches), loss (sum
over the rows of each batch), grad.<tensor>, buffer.<tensor> (contributions over all batches), out.<output> (scores of batch 0).
"""

import copy
import json
import sys

import torch
from ballast.export import export
from ballast.model import read_model
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

VOCABULARY, TOKENS, CLASSES = 50, 8, 5


class Mlp(nn.Module):
    def __init__(self, norm: bool = False):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16) if norm else nn.Identity(), nn.ReLU(), nn.Linear(16, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Transformer(nn.Module):
    """Texts padded with token 0; a mean over what is not padding."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16, padding_idx=0)
        self.register_buffer("position", torch.randn(TOKENS, 16), persistent=False)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        padding = tokens == 0
        x = self.encoder(self.embedding(tokens) + self.position, src_key_padding_mask=padding)
        keep = (~padding).unsqueeze(2).to(x.dtype)
        return self.head((x * keep).sum(1) / keep.sum(1))


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.gru = nn.GRU(8, 12, num_layers=2, batch_first=True)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.embedding(tokens))[0][:, -1])


class Shared(nn.Module):
    """A language model whose output layer is its embedding; the loss of a row is the mean over its positions."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.mix(self.embedding(tokens)))).transpose(1, 2)


class Partial(nn.Module):
    """A parameter that is not trained, one that gets no gradient, a double one, a sparse gradient."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 6, sparse=True)
        self.frozen = nn.Linear(6, 6)
        self.frozen.requires_grad_(False)
        self.unused = nn.Parameter(torch.randn(3))
        self.scale = nn.Parameter(torch.ones(6, dtype=torch.float64))
        self.head = nn.Linear(6, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.frozen(self.embedding(tokens).mean(1)) * self.scale.float())


class Buffers(nn.Module):
    """Counts rows (int32), keeps a moving average by assignment, has a mask that never changes; returns a dict."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 2)
        self.register_buffer("rows", torch.tensor(3, dtype=torch.int32))
        self.register_buffer("average", torch.zeros(6))
        self.register_buffer("mask", torch.tensor([True, True, False, True, True, False]))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.training:
            self.rows += x.size(0)
            self.average = 0.9 * self.average + 0.1 * x.mean(0)
        x = (x - self.average) * self.mask
        return {"prediction": self.linear(x), "centred": x}


class Method(nn.Module):
    """Its loss is its own, needs no label and can make trouble: "rough" has an infinite slope at 0, "scalar" is one number."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x @ self.weight, x * self.weight

    @torch.jit.export
    def smooth(self, x: torch.Tensor) -> torch.Tensor:
        return (self.forward(x)[0] - 1).pow(2) + self.weight.pow(2).sum() * 0.01

    @torch.jit.export
    def rough(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(torch.abs(self.forward(x)[0]))

    @torch.jit.export
    def scalar(self, x: torch.Tensor) -> torch.Tensor:
        return self.rough(x).sum()


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


class Decaying(Head):
    """Changes a parameter inside forward, which `export` refuses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.head.weight.mul_(0.5)
        return self.head(x)


def tokens(rows):
    ids = torch.randint(1, VOCABULARY, (rows, TOKENS), dtype=torch.int32)
    for row in range(rows):
        ids[row, torch.randint(1, TOKENS + 1, ()) :] = 0
    return ids


def floats(*shape):
    return lambda rows: torch.randn(rows, *shape)


def classes(rows):
    return torch.randint(0, CLASSES, (rows,))


TOKENS_IN = {"tokens": ("int32", (TOKENS,))}
X_IN = {"x": ("float32", (6,))}
LABEL = "int64"
# name: (module, inputs, label, loss, makers of the columns, in order)
CASES = {
    "mlp": (Mlp, X_IN, LABEL, "cross_entropy", [floats(6), classes]),
    "mlp_norm": (lambda: Mlp(norm=True), X_IN, LABEL, "cross_entropy", [floats(6), classes]),
    "transformer": (Transformer, TOKENS_IN, LABEL, "cross_entropy", [tokens, classes]),
    "gru": (Gru, TOKENS_IN, LABEL, "cross_entropy", [tokens, classes]),
    "shared": (Shared, TOKENS_IN, ("int64", (TOKENS,)), "cross_entropy", [tokens, lambda r: tokens(r).long()]),
    "partial": (Partial, TOKENS_IN, "bool", "bce_with_logits", [tokens, lambda r: torch.rand(r) < 0.5]),
    "buffers": (Buffers, X_IN, ("float32", (2,)), "mse", [floats(6), floats(2)]),
    "method": (Method, {"x": ("float32", (4,))}, None, "smooth", [floats(4)]),
}


def row_losses(module, loss, inputs, label):
    if loss == "smooth":
        return module.smooth(*inputs)
    out = module(*inputs)
    out = next(iter(out.values())) if isinstance(out, dict) else out
    if loss == "cross_entropy":
        losses = F.cross_entropy(out, label.long(), reduction="none")
    elif loss == "bce_with_logits":
        losses = F.binary_cross_entropy_with_logits(out, label.to(out.dtype).reshape(out.shape), reduction="none")
    else:
        losses = F.mse_loss(out, label.to(out.dtype).reshape(out.shape), reduction="none")
    return losses.flatten(1).mean(1) if losses.dim() > 1 else losses


def stored(tensor):
    """As the run keeps it."""
    return tensor.detach().to(torch.float32 if tensor.is_floating_point() else torch.int64).clone().contiguous()


def named(module):
    return dict(list(module.named_parameters()) + list(module.named_buffers()))


def train(module, loss, values, batches, result):
    """All batches from the same values; gradients of sums of rows; buffers as their rules say."""
    module.train()
    losses, sums = [], {}
    for inputs, label in batches:
        for name, buffer in module.named_buffers():
            buffer.copy_(values[name])
        total = row_losses(module, loss, inputs, label)
        losses.append(total.double().sum())
        total.sum().backward()
        for name, buffer in module.named_buffers():
            if buffer.is_floating_point():
                sums[name] = sums.get(name, 0) + buffer.double() * len(total)
            elif not torch.equal(buffer.long(), values[name]):
                sums[name] = buffer.clone()
    result["loss"] = torch.stack(losses).detach()
    result.update({f"buffer.{n}": stored(t) for n, t in sums.items()})
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            result[f"grad.{name}"] = stored(parameter.grad.to_dense())


def make(out, case, module, inputs, label, loss, makers):
    export(module, f"{out}/{case}.pt", inputs, label, loss)
    result = {f"init.{n}": stored(t) for n, t in named(module).items()}
    values = {n: t * 1.25 + 0.125 if t.is_floating_point() else t.clone() for n, t in ((n, stored(t)) for n, t in named(module).items())}
    result.update({f"value.{n}": t for n, t in values.items()})
    with torch.no_grad():
        for name, tensor in named(module).items():
            tensor.copy_(values[name])
    columns = list(inputs) + (["label"] if label else [])
    batches = []
    for i, rows in enumerate([5, 3, 4]):
        made = [make_column(rows) for make_column in makers]
        result.update({f"b{i}.{c}": t for c, t in zip(columns, made)})
        batches.append((made[: len(inputs)], made[-1] if label else None))
    scored = copy.deepcopy(module).eval()
    with torch.no_grad():
        output = scored(*batches[0][0])
    outputs = list(output.values()) if isinstance(output, dict) else list(output) if isinstance(output, tuple) else [output]
    described = read_model(f"{out}/{case}.pt").description.outputs
    result.update({f"out.{c.name}": t.clone().contiguous() for c, t in zip(described, outputs)})
    train(module, loss, values, batches, result)
    save_file(result, f"{out}/{case}.safetensors")


def make_bad(out):
    """Models that a worker must refuse, or refuse a batch of: export would not let the first one through."""
    inputs = {"x": ("float32", (4,))}
    described = export(Method(), f"{out}/rough.pt", inputs, None, "rough")
    described["loss"] = "method:scalar"
    torch.jit.save(torch.jit.script(Method()), f"{out}/scalar.pt", _extra_files={"ballast.json": json.dumps(described)})
    torch.jit.save(torch.jit.script(Method()), f"{out}/undescribed.pt")
    described = export(Head(), f"{out}/decaying.pt", X_IN, LABEL, "cross_entropy")
    torch.jit.save(torch.jit.script(Decaying()), f"{out}/decaying.pt", _extra_files={"ballast.json": json.dumps(described)})
    export(Transformer(dropout=0.5), f"{out}/dropout.pt", TOKENS_IN, LABEL, "cross_entropy")


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    out = sys.argv[1]
    for case, (module, *rest) in CASES.items():
        make(out, case, module(), *rest)
    make_bad(out)


if __name__ == "__main__":
    main()
