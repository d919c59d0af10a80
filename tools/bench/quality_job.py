"""Held-out accuracy after some epochs on the demo's text: Ballast (2 servers, 2 workers, rows from Spark) beside plain PyTorch.

Both sides see the same rows, initial weights, global batch, optimizer and number of epochs; the order of rows differs, as it does between
two seeds. So single values differ by chance, and what counts is the difference of the means over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import ballast
import ballast.spark
from tools.bench import plain
from tools.bench.cluster import benchmark_cluster
from tools.demo_job.job import prepare, say, start_spark, to_numpy
from tools.demo_job.model import TOKENS

STEP_ROWS = 256
BOUND_POINTS = {"int8": 1.0, "bf16": 1.0, "fp32": 0.5}  # of the difference of the means


@dataclass(frozen=True)
class Task:
    """Rows twice: as a data frame for Ballast and in memory for PyTorch."""

    frame: Any
    tokens: Any
    labels: Any
    test_tokens: Any
    test_labels: Any
    classes: int


def load(spark: Any, folder: Path, rows: int | None) -> Task:
    train, held_out, classes = prepare(spark, folder, rows)
    return Task(train, *to_numpy(train), *to_numpy(held_out), classes)


def accuracy_of_pytorch(task: Task, epochs: int, seed: int, step_rows: int = STEP_ROWS) -> float:
    model = plain.new_model(task.classes, seed)
    plain.train(model, task.tokens, task.labels, epochs, step_rows, seed)
    return plain.accuracy(model, task.test_tokens, task.test_labels)


def accuracy_of_ballast(address: str, task: Task, folder: Path, epochs: int, seed: int, codec: str, step_rows: int = STEP_ROWS) -> float:
    run, path = f"quality-{codec}-{seed}", str(folder / f"quality-{seed}.pt")
    model = plain.new_model(task.classes, seed)
    ballast.export(model, path, inputs={"tokens": ("int32", (TOKENS,))}, label=("int64", ()), outputs=["logits"])
    with ballast.spark.connect(address) as ps:
        result = ps.train(
            task.frame, model=path, features=["tokens"], label="label", id_col="id", epochs=epochs, batch_rows=step_rows // 2, step_rows=step_rows,
            optimizer=ballast.Adam(lr=plain.LEARNING_RATE), codec=codec, seed=seed, run_id=run, progress=False,
        )  # fmt: skip
        if result.rows_trained != len(task.labels) * epochs:
            raise RuntimeError(f"{run} trained {result.rows_trained} rows, not {len(task.labels)} x {epochs}")
        model.load_state_dict(ps.state_dict(run))
    return plain.accuracy(model, task.test_tokens, task.test_labels)


def describe(values: list[float]) -> str:
    spread = f" +- {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{'  '.join(f'{100 * v:.2f}' for v in values)}   mean {100 * statistics.mean(values):.2f}{spread}"


def verdict(name: str, values: list[float], reference: list[float]) -> bool:
    """Prints the difference of the means in points of accuracy; true when it is within the bound."""
    difference, bound = 100 * (statistics.mean(values) - statistics.mean(reference)), BOUND_POINTS[name]
    good = abs(difference) <= bound
    print(f"ballast {name} - pytorch: {difference:+.2f} points of accuracy, bound {bound}: {'PASS' if good else 'FAIL'}", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench/quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--codecs", default="int8,fp32", help="of gradients: int8, bf16, fp32")
    parser.add_argument("--rows", type=int, help="an even sample of so many packages; default: all")
    parser.add_argument("--json", type=Path, help="also write the values to this file")
    parser.add_argument("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    codecs = arguments.codecs.split(",")
    if unknown := set(codecs) - set(BOUND_POINTS):
        parser.error(f"unknown codec {', '.join(sorted(unknown))}")
    folder = arguments.folder / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    spark = start_spark()
    task = load(spark, folder, arguments.rows)
    say(f"{len(task.labels):,} rows to train on, {len(task.test_labels):,} held out; {arguments.epochs} epochs, {arguments.seeds} seeds")

    values: dict[str, list[float]] = {name: [] for name in ["pytorch", *codecs]}
    with benchmark_cluster(folder) as cluster:
        for seed in range(1, arguments.seeds + 1):
            for name in values:
                started = time.monotonic()
                if name == "pytorch":
                    value = accuracy_of_pytorch(task, arguments.epochs, seed)
                else:
                    value = accuracy_of_ballast(cluster["server"], task, folder, arguments.epochs, seed, name)
                values[name].append(value)
                say(f"seed {seed}  {name:8} {100 * value:.2f} %   ({time.monotonic() - started:.0f} s)")
    spark.stop()

    print(f"\n== held-out accuracy in percent after {arguments.epochs} epochs of {len(task.labels):,} rows ==")
    for name, numbers in values.items():
        print(f"{name if name == 'pytorch' else 'ballast ' + name:14} {describe(numbers)}")
    good = [verdict(codec, values[codec], values["pytorch"]) for codec in codecs]
    if arguments.json:
        arguments.json.write_text(json.dumps({"epochs": arguments.epochs, "rows": len(task.labels), "accuracy": values}, indent=1))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
