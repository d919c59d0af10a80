"""The demo: a PySpark job trains a Transformer on the descriptions of this machine's packages, through separate server and worker processes,
then scores the held-out fifth and says what happened.

    tools/demo [--quick] [--epochs N] [--down]      (sets up and builds first, then runs this file)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable

import numpy as np
import torch
from pyspark.sql import DataFrame, SparkSession

import ballast
import ballast.spark
from tools.demo_job import baselines, tokens
from tools.demo_job.model import TOKENS, VOCABULARY, SectionClassifier
from tools.demo_job.packages import read_packages

QUICK_ROWS = 5000


def ctl(*arguments: str) -> Any:
    done = subprocess.run([os.environ["BALLASTCTL"], "--json", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"tools/demo: ballastctl {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def start_spark() -> SparkSession:
    say("starting Spark: local-cluster, 2 executor processes with one core each")
    spark = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .appName("ballast-demo")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.executorEnv.PYTHONPATH", os.environ["PYTHONPATH"])
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def say(text: str) -> None:
    print(f"demo: {text}", flush=True)


def prepare(spark: SparkSession, folder: Path, rows: int | None) -> tuple[DataFrame, DataFrame, int]:
    """Tokenises in Spark, writes Parquet, returns (training rows, held-out rows, classes)."""
    packages = read_packages()
    if rows is not None:  # an even sample over the alphabet
        packages = packages[:: max(1, len(packages) // rows)][:rows]
    sections = {s: i for i, s in enumerate(sorted({p.section for p in packages}))}
    say(f"{len(packages):,} packages in {len(sections)} sections")
    frame = spark.createDataFrame([(i, *p) for i, p in enumerate(packages)], "id long, name string, description string, section string")
    words = tokens.with_words(frame).cache()
    ids = tokens.vocabulary(words, VOCABULARY)
    path = str(folder / "packages.parquet")
    tokens.encode(words, ids, sections, TOKENS).write.mode("overwrite").parquet(path)
    words.unpersist()
    data = spark.read.parquet(path)
    return data.where("not held_out").drop("held_out"), data.where("held_out").drop("held_out"), len(sections)


def to_numpy(frame: DataFrame) -> tuple[np.ndarray, np.ndarray]:
    table = frame.select("tokens", "label").toArrow()
    return table["tokens"].combine_chunks().flatten().to_numpy().reshape(-1, TOKENS), table["label"].to_numpy()


def accuracy(scored: DataFrame) -> float:
    table = scored.select("label", "logits").toArrow()
    labels = table["label"].to_numpy()
    logits = table["logits"].combine_chunks().flatten().to_numpy().reshape(len(labels), -1)
    return float((logits.argmax(1) == labels).mean())


def scrape(address: str) -> dict[str, float]:
    text = urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read().decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line and not line.startswith("#")}


def total(samples: list[dict[str, float]], name: str, *labels: str) -> float:
    return sum(v for s in samples for k, v in s.items() if k.split("{")[0] == name and all(label in k for label in labels))


def wire_summary(cluster: dict[str, Any]) -> str:
    workers = [scrape(p["metrics_address"]) for p in cluster["processes"] if p["name"].startswith("worker")]
    sent = total(workers, "ballast_push_sent_bytes_total")
    fp32 = total(workers, "ballast_push_fp32_bytes_total")
    pulled = total(workers, "ballast_pull_received_bytes_total")
    return (
        f"gradients {sent / 1e6:,.1f} MB on the wire and in the log, {fp32 / 1e6:,.1f} MB as fp32: {fp32 / max(sent, 1):.1f} times fewer; "
        f"parameters pulled {pulled / 1e6:,.1f} MB"
    )


def time_summary(run: dict[str, Any], seconds: dict[str, float]) -> list[str]:
    timing = run["timing_seconds"]
    whole = sum(timing.values()) or 1
    split = "  ".join(f"{phase} {100 * value / whole:.0f} %" for phase, value in sorted(timing.items(), key=lambda x: -x[1]))
    return ["time          " + "  ".join(f"{name} {value:.1f} s" for name, value in seconds.items()), f"  of workers  {split}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS} rows and 2 epochs")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    epochs = arguments.epochs or (2 if arguments.quick else 5)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    seconds: dict[str, float] = {}

    def timed(name: str) -> None:
        seconds[name] = time.monotonic() - started - sum(seconds.values())

    cluster = ctl("dev", "up", "--servers", "2", "--workers", "2", "--dir", str(arguments.folder / "cluster"), "--worker-flag=--threads=1")
    say(f"2 servers and 2 workers run; server 0 is {cluster['server']}")
    spark = start_spark()
    train, held_out, classes = prepare(spark, arguments.folder, QUICK_ROWS if arguments.quick else None)
    timed("Spark and data")

    torch.manual_seed(0)
    model = str(arguments.folder / "sections.pt")
    ballast.export(SectionClassifier(classes), model, inputs={"tokens": ("int32", (TOKENS,))}, label=("int64", ()), outputs=["logits"])
    ps = ballast.spark.connect(cluster["server"])
    run_id = time.strftime("demo-%Y%m%d-%H%M%S")
    result = ps.train(
        train, model=model, features=["tokens"], label="label", id_col="id", epochs=epochs, batch_rows=128, step_rows=256,
        optimizer=ballast.Adam(lr=1e-3), codec="int8", run_id=run_id,
    )  # fmt: skip
    timed("training")
    ours = accuracy(ps.score(held_out, run=run_id, feed={"tokens": "tokens"}, fetch={"logits": "logits"}))
    timed("scoring")
    train_x, train_y = to_numpy(train)
    test_x, test_y = to_numpy(held_out)
    timed("baselines")
    run = ctl("--server", cluster["server"], "run", "show", run_id)
    print_summary(run_id, run, result, cluster, seconds, len(train_y), ours, baselines.majority(train_y, test_y), baselines.naive_bayes(train_x, train_y, test_x, test_y))
    spark.stop()


def print_summary(run_id: str, run: dict[str, Any], result: Any, cluster: dict[str, Any], seconds: dict[str, float], rows: int, ours: float, majority: float, bayes: float) -> None:
    rows_in = sum(e["rows_in"] for e in run["epochs"])
    verdict = "every row exactly once" if rows_in == run["rows_trained"] + run["rows_skipped"] == rows * len(run["epochs"]) else "THE COUNTS DIFFER"
    metrics = next(p["metrics_address"] for p in cluster["processes"])
    print(f"\n== {run_id}: {len(run['epochs'])} epochs of {rows:,} rows ==")
    print(f"rows          in {rows_in:,} = trained {run['rows_trained']:,} + skipped {run['rows_skipped']:,}   ({verdict})")
    print(f"accuracy      {ours:.3f} on held-out packages   (most frequent section {majority:.3f}, Naive Bayes {bayes:.3f})")
    print(f"steps         {run['steps']:,} of 256 rows, {run['steps_part_full']} part-full; loss {run['loss']:.3f}")
    print(f"bytes         {wire_summary(cluster)}")
    for line in time_summary(run, seconds):
        print(line)
    ctl_path = os.path.relpath(os.environ["BALLASTCTL"])
    print(f"\nThe cluster still runs. Look further:\n  {ctl_path} --server {cluster['server']} run show {run_id}")
    print(f"  {ctl_path} --server {cluster['server']} ckpt show {run_id}\n  curl http://{metrics}/metrics\nStop it:\n  tools/demo --down")
    if verdict != "every row exactly once":
        sys.exit(1)


if __name__ == "__main__":
    main()
