"""Distributed training computes what plain PyTorch computes: same global batches, same optimizer, one process.

The test reads from the decisions which batches formed each step, builds those batches again from the data, and steps torch.optim over them.
fp32 codecs, staleness 0, no dropout. With SGD every tensor agrees to 1e-5; with Adam every step's loss to 1e-4 and the predictions to 1e-3
(a parameter whose true gradient is zero wanders by rounding under Adam: a bias before BatchNorm, the key third of in_proj_bias).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import ballast
import ballast.spark
from ballast.spark.columns import training_sources
from ballast.spark.epoch import epoch_frame
from ballast.model import read_model
from tests.support.cluster import Cluster
from tests.support.models import BatchNormMlp, FrozenConv, Gru, TiedLstm, Transformer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROWS, BATCH, STEP, PARTITIONS, SEED = 1800, 16, 32, 4, 11
MODELS = {"transformer": (Transformer, 5), "gru": (Gru, 50), "batchnorm": (BatchNormMlp, 5)}
FURTHER = {"tied-lstm": (TiedLstm, 50), "frozen-conv": (FrozenConv, 5)}
INPUTS = {"frozen-conv": {"tokens": ("int32", (8,)), "x": ("float32", (3,))}}


def make_rows(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens 1..49 with some padding at the end, and a label that can be learnt."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(1, 50, (ROWS, 8), dtype=np.int32)
    for row, length in enumerate(rng.integers(3, 9, ROWS)):
        tokens[row, length:] = 0
    return torch.from_numpy(tokens), torch.from_numpy((tokens[:, 0].astype(np.int64) + tokens[:, 1]) % classes)


def batches_of_epoch(df: Any, model: str, features: list[str]) -> dict[tuple[int, int], list[int]]:
    """(partition, seq) -> row ids, from the client's own deterministic frame."""
    frame = epoch_frame(df, training_sources(df.schema, read_model(model).description, features, "label"), "id", SEED, 1, PARTITIONS)

    def number(batches: Any) -> Any:
        import pyarrow as pa
        from pyspark import TaskContext

        for batch in batches:
            yield pa.RecordBatch.from_arrays([pa.array([TaskContext.get().partitionId()] * batch.num_rows, pa.int32()), batch.column("id")], ["p", "id"])

    order: dict[int, list[int]] = {}
    for row in frame.mapInArrow(number, "p int, id long").collect():
        order.setdefault(row["p"], []).append(row["id"])
    return {(p, seq): batch for p, ids in order.items() for seq, batch in enumerate(cut(ids))}


def cut(ids: list[int]) -> list[list[int]]:
    """Batches of BATCH rows; the last two share theirs evenly, the first of them has the odd row."""
    whole, rest = divmod(len(ids), BATCH)
    sizes = [BATCH] * whole
    if rest:
        last = (sizes.pop() if sizes else 0) + rest
        sizes += [last - last // 2, last // 2] if last > BATCH else [last]
    ends = list(itertools.accumulate(sizes, initial=0))
    return [ids[a:b] for a, b in itertools.pairwise(ends)]


class Reference:
    """One process of plain PyTorch over the batches that the decisions name."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, inputs: list[torch.Tensor], labels: torch.Tensor):
        self.module, self.optimizer, self.inputs, self.labels = module, optimizer, inputs, labels

    def step(self, parts: list[list[list[int]]]) -> float:
        """`parts`: row ids by contribution and batch. Mean loss over the global batch; BatchNorm statistics per batch, averaged by rows."""
        self.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        rows = sum(len(batch) for part in parts for batch in part)
        before = {name: b.clone() for name, b in self.module.named_buffers()}
        sums = {name: torch.zeros_like(b) for name, b in before.items() if b.is_floating_point()}
        total = 0.0
        for batch in (batch for part in parts for batch in part):
            for name, b in self.module.named_buffers():
                b.copy_(before[name])
            loss = F.cross_entropy(self.module(*(i[batch] for i in self.inputs)), self.labels[batch], reduction="sum")
            (loss / rows).backward()
            total += loss.item()
            for name, b in self.module.named_buffers():
                if name in sums:
                    sums[name] += b * len(batch)
        for name, b in self.module.named_buffers():
            if name in sums:
                b.copy_(sums[name] / rows)
        self.optimizer.step()
        return total / rows


def train_both(spark: Any, folder: Path, name: str, size: int, optimizer: Any) -> tuple[dict[str, torch.Tensor], Reference, list[tuple[float, float]]]:
    """(our state dict, reference after the same steps, [(our loss, its loss)])."""
    build, classes = {**MODELS, **FURTHER}[name]
    described = INPUTS.get(name, {"tokens": ("int32", (8,))})
    torch.manual_seed(3)
    module = build()
    tokens, labels = make_rows(classes)
    model = str(folder / f"{name}.pt")
    x = tokens[:, :3].float() / 50
    ballast.export(module, model, inputs=described, label=("int64", ()))
    df = spark.createDataFrame(
        [(i, t, v, y) for i, (t, v, y) in enumerate(zip(tokens.tolist(), x.tolist(), labels.tolist()))], "id long, tokens array<int>, x array<float>, label long"
    )
    with Cluster(folder / "cluster", size, size, server_flags=("--log-retain=all",)) as cluster:
        with ballast.spark.connect(cluster.address) as ps:
            result = ps.train(
                df, model=model, features=list(described), label="label", id_col="id", epochs=1, batch_rows=BATCH, step_rows=STEP,
                optimizer=optimizer, codec="fp32", run_id=name, seed=SEED, partitions=PARTITIONS, progress=False,
            )  # fmt: skip
            assert result.rows_trained == ROWS
            ours = ps.state_dict(name)
        decisions = [d for d in cluster.ctl_json("run", "show", name, "--steps")["decisions"] if d["kind"] == "STEP"]
    assert len(decisions) >= 50
    sgd = isinstance(optimizer, ballast.SGD)
    parameters = module.parameters()
    theirs = torch.optim.SGD(parameters, lr=0.05, momentum=0.9) if sgd else torch.optim.Adam(parameters, lr=1e-3)
    reference = Reference(module, theirs, [{"tokens": tokens, "x": x}[i] for i in described], labels)
    ids = batches_of_epoch(df, model, list(described))
    losses = []
    for d in decisions:
        parts = [[ids[(b["partition"], b["seq"])] for b in part["batches"]] for part in d["parts"]]
        our_loss = sum(p["loss_sum"] for p in d["parts"]) / sum(p["rows"] for p in d["parts"])
        losses.append((our_loss, reference.step(parts)))
    return ours, reference, losses


@pytest.mark.parametrize(("name", "size"), [*((name, size) for name in MODELS for size in (1, 2)), *((name, 2) for name in FURTHER)])
def test_sgd_with_momentum_gives_the_tensors_of_plain_pytorch(spark: Any, tmp_path: Path, name: str, size: int) -> None:
    ours, reference, _ = train_both(spark, tmp_path, name, size, ballast.SGD(lr=0.05, momentum=0.9))
    for tensor, expected in reference.module.state_dict().items():
        got = ours[tensor]
        assert got.dtype == expected.dtype and got.shape == expected.shape, tensor
        difference = (got.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-12)
        assert difference <= 1e-5, f"{tensor}: relative difference {difference:.2e}"


@pytest.mark.parametrize("name", list(MODELS))
def test_adam_gives_the_losses_and_predictions_of_plain_pytorch(spark: Any, tmp_path: Path, name: str) -> None:
    ours, reference, losses = train_both(spark, tmp_path, name, 2, ballast.Adam(lr=1e-3))
    for step, (got, expected) in enumerate(losses, 1):
        assert abs(got - expected) <= 1e-4 * abs(expected), f"step {step}: loss {got} against {expected}"
    mine = MODELS[name][0]()
    mine.load_state_dict(ours)
    mine.eval(), reference.module.eval()
    with torch.no_grad():
        got, expected = mine(*reference.inputs), reference.module(*reference.inputs)
    difference = ((got - expected).norm() / expected.norm()).item()
    assert difference <= 1e-3, f"predictions differ by {difference:.2e}"
