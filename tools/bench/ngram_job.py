"""tools/bench/ngram: from text to a model, ours and lmplz's."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Cost(NamedTuple):
    wall_s: float
    cpu_s: float
    peak_mib: float  # of the largest process


def run(command: Iterable[object], log: Path) -> Cost:
    """What it took, with the processes that it waited for."""
    start = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{process.args[0]} ended with status {process.returncode}:\n{log.read_text()[-3000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def spark(arguments: argparse.Namespace, binary: Path, scratch: Path) -> Cost:
    """CPU seconds are those of its report: the JVM is no process that is waited for."""
    shutil.rmtree(scratch / "work", ignore_errors=True)
    shutil.rmtree(scratch / "tables", ignore_errors=True)
    output = f'tables = "{scratch}/tables"' if arguments.tables else f'arpa = "{scratch}/spark.arpa"'
    config = scratch / "lm.toml"
    config.write_text(
        f'work = "{scratch}/work"\nreport = "{scratch}/report"\nestimator = "{binary}"\n'
        f'[spark]\n"spark.driver.memory" = "4g"\n"spark.ui.enabled" = "false"\n'
        f'[model.m]\ntext = "{arguments.text.resolve()}"\norder = {arguments.order}\ncompat = "lmplz"\n{output}\n'
        + (f'carrier = "{arguments.carrier}"\n' if arguments.carrier else "")
    )
    cost = run([sys.executable, "-m", "ballast.ngram", "train", "--config", config, "--master", "local[2]"], scratch / "spark.log")
    report = json.loads((scratch / "report" / "report.json").read_text())
    peak = max(report["driver_rss_peak_bytes"], *(stage["estimator_rss_peak_bytes"] for stage in report["stages"]))
    return Cost(cost.wall_s, report["totals"]["cpu_s"], peak / (1 << 20))


def programs(arguments: argparse.Namespace, scratch: Path) -> dict[str, Callable[[], Cost]]:
    binary = Path(os.environ.get("BALLAST_BIN") or ROOT / "bazel-bin/tools/ngram") / "ballast-ngram"
    ours = [binary, "train", arguments.text, "--order", arguments.order, "--compat", "lmplz", "--scratch", scratch, "--out", scratch / "ours.arpa"]
    out: dict[str, Callable[[], Cost]] = {"ballast-ngram": lambda: run(ours, scratch / "ours.log")}
    if arguments.lmplz:
        theirs = [arguments.lmplz, "-o", arguments.order, "-S", arguments.lmplz_memory, "-T", scratch, "--text", arguments.text, "--arpa", scratch / "lmplz.arpa"]
        out["lmplz"] = lambda: run(theirs, scratch / "lmplz.log")
    if arguments.spark:
        out["spark"] = lambda: spark(arguments, binary, scratch)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench/ngram")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spark", action="store_true", help="the Spark application, too")
    parser.add_argument("--tables", action="store_true", help="Parquet tables, not an ARPA file, from the Spark application")
    parser.add_argument("--carrier", help="of the Spark application: subprocess or pipe")
    parser.add_argument("--lmplz", type=Path, help="kenlm's program")
    parser.add_argument("--lmplz-memory", default="4G")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="ngram-", dir=arguments.folder))
    try:
        todo = programs(arguments, scratch)
        rounds: dict[str, list[Cost]] = {name: [] for name in todo}
        for number in range(arguments.rounds):
            for name, measure in todo.items():
                rounds[name].append(measure())
                cost = rounds[name][-1]
                print(f"round {number + 1}: {name} {cost.wall_s:.1f} s, {cost.cpu_s:.1f} CPU s, {cost.peak_mib:.0f} MiB", flush=True)
        medians = {name: Cost(*(statistics.median(column) for column in zip(*costs))) for name, costs in rounds.items()}
        for name, cost in medians.items():
            ratio = f", {cost.wall_s / medians['lmplz'].wall_s:.2f} x lmplz" if "lmplz" in medians else ""
            print(f"median: {name} {cost.wall_s:.1f} s{ratio}, {cost.cpu_s:.1f} CPU s, {cost.peak_mib:.0f} MiB")
        if arguments.json:
            arguments.json.write_text(json.dumps({"order": arguments.order, "rounds": rounds, "medians": medians}, indent=1))
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
