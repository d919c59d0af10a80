"""Rows a second of the demo's training: Ballast (2 servers, 2 workers, rows from Spark, int8 gradients) beside PyTorch DDP (2 processes, data
in memory), one compute thread in each worker and each rank, 128 rows a batch, Adam.

On few cores everything that Ballast does beside the computation (Spark's JVMs, the Python feeders, the servers' log and optimizer) takes cores
from it, and DDP has none of it: so CPU seconds stand beside the rates. "compute share" says how many rows a second the workers' and servers'
CPU alone would allow against DDP's: what remains when Spark runs on machines of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ballast
from tools.bench import ddp, plain, training_round
from tools.bench.cluster import benchmark_cluster
from tools.bench.ddp import DdpResult
from tools.bench.training_round import Round
from tools.demo_job.job import prepare, say, start_spark, to_numpy
from tools.demo_job.model import TOKENS

BATCH_ROWS = 128
BAR = 0.8  # of DDP, at staleness 1
QUIET_CORES = 0.2  # more than that in use by other processes, and the rates are not judged


def median(rounds: list[Any], value: Callable[[Any], float]) -> float:
    return statistics.median(value(r) for r in rounds)


def medians(rounds: list[Any], counter: Callable[[Any], dict[str, float]]) -> dict[str, float]:
    names = {name for r in rounds for name in counter(r)}
    return {name: median(rounds, lambda r: counter(r).get(name, 0.0)) for name in sorted(names)}


def listed(values: dict[str, float], most: int = 99) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in sorted(values.items(), key=lambda item: -item[1])[:most])


def print_ballast(staleness: int, rounds: list[Round], rivals: list[DdpResult], threads: bool) -> None:
    ratios = [r.rows_per_second / d.rows_per_second for r, d in zip(rounds, rivals)]
    print(f"\nballast, staleness {staleness}")
    print(f"  rows/s        {median(rounds, lambda r: r.rows_per_second):,.0f}   of DDP in the same round: {'  '.join(f'{r:.2f}' for r in ratios)}   median {statistics.median(ratios):.2f}")
    print(f"  train() call  {median(rounds, lambda r: r.call_seconds):.1f} s for {rounds[0].rows:,} rows")
    print(f"  steps         {rounds[0].steps:,}, part-full {median(rounds, lambda r: r.steps_part_full):.0f}")
    per_row = medians(rounds, lambda r: {k: 1000 * v / r.rows for k, v in r.cpu.items()})
    theirs = median(rivals, lambda d: 1000 * d.cpu_seconds / d.rows)
    print(f"  CPU s / 1000 rows   {listed(per_row)}   (DDP {theirs:.2f})")
    print(f"  compute share {theirs / (per_row['workers'] + per_row['servers']):.2f} of DDP's rows per CPU second, workers and servers alone")
    print(f"  sessions, s   {listed(medians(rounds, lambda r: r.timing))}")
    print(f"  tasks, s      {listed(medians(rounds, lambda r: r.feed))}")
    kilobytes = medians(rounds, lambda r: {k: v / 1e3 / r.steps for k, v in r.bytes.items()})
    print(f"  kB / step     {listed(kilobytes)}")
    step_ms = median(rounds, lambda r: 1e3 * r.rows / r.steps / r.rows_per_second)
    log_ms = medians(rounds, lambda r: {k: 1e3 * v / r.steps for k, v in r.log.items()})
    shares = "  ".join(f"{name} {ms:.2f} ms ({ms / step_ms:.1%})" for name, ms in log_ms.items())
    print(f"  log / step    {shares}   of {step_ms:.1f} ms")
    print(f"  others used   {median(rounds, lambda r: r.other_cores):.2f} cores")
    if threads:
        print(f"  busiest threads of servers and workers, CPU s   {listed(medians(rounds, lambda r: r.threads), 12)}")


def print_verdict(rounds: list[Round], rivals: list[DdpResult]) -> None:
    ratio = statistics.median(r.rows_per_second / d.rows_per_second for r, d in zip(rounds, rivals))
    others = max(median(rounds, lambda r: r.other_cores), median(rivals, lambda d: d.other_cores))
    verdict = "reached" if ratio >= BAR else "not reached"
    if others > QUIET_CORES:  # the scheduler divides a busy machine by processes: whoever has more of them looks faster
        verdict = f"not judged, other processes kept {others:.1f} cores busy"
    print(f"\nstaleness 1: {ratio:.2f} of DDP, bar {BAR}: {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench/throughput", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, help="an even sample of so many packages; default: all")
    parser.add_argument("--staleness", default="0,1")
    parser.add_argument("--threads", action="store_true", help="also list the busiest threads of servers and workers")
    parser.add_argument("--json", type=Path, help="also write every round to this file")
    parser.add_argument("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    bounds = [int(s) for s in arguments.staleness.split(",")]
    folder = arguments.folder / "throughput"
    folder.mkdir(parents=True, exist_ok=True)
    spark = start_spark()
    frame, _, classes = prepare(spark, folder, arguments.rows)
    tokens, labels = to_numpy(frame)
    model = str(folder / "model.pt")
    ballast.export(plain.new_model(classes, seed=0), model, inputs={"tokens": ("int32", (TOKENS,))}, label=("int64", ()), outputs=["logits"])
    say(f"{len(labels):,} rows, {arguments.epochs} epochs, {arguments.rounds} rounds after one that does not count")

    rivals: list[DdpResult] = []
    rounds: dict[int, list[Round]] = {s: [] for s in bounds}
    with benchmark_cluster(folder) as cluster:
        for number in range(arguments.rounds + 1):
            order = [None, *bounds] if number % 2 else [*reversed(bounds), None]  # alternating: the machine's speed drifts
            for staleness in order:
                if staleness is None:
                    rivals.append(ddp.measure(folder, tokens, labels, classes, arguments.epochs, BATCH_ROWS))
                    say(f"round {number}  ddp          {rivals[-1].rows_per_second:8,.0f} rows/s")
                else:
                    run = f"throughput-{staleness}-{number}"
                    rounds[staleness].append(training_round.measure(cluster, frame, model, run, arguments.epochs, BATCH_ROWS, staleness))
                    say(f"round {number}  staleness {staleness}  {rounds[staleness][-1].rows_per_second:8,.0f} rows/s")
    spark.stop()
    if arguments.rounds:  # the first round warmed up
        rivals, rounds = rivals[1:], {s: r[1:] for s, r in rounds.items()}

    print(f"\n== medians of {len(rivals)} rounds ==\nddp           {median(rivals, lambda d: d.rows_per_second):,.0f} rows/s")
    for staleness in bounds:
        print_ballast(staleness, rounds[staleness], rivals, arguments.threads)
    if 1 in bounds:
        print_verdict(rounds[1], rivals)
    if arguments.json:
        arguments.json.write_text(json.dumps({"ddp": [asdict(d) for d in rivals], "ballast": {s: [asdict(r) for r in rounds[s]] for s in bounds}}, indent=1))


if __name__ == "__main__":
    main()
