"""Campaigns of the test programs that take seeds, in parts that are recorded and resumed.

    python -m tests.campaign sim --seeds 1000000 --results tests/sim/results.jsonl
    python -m tests.campaign power-loss --seeds 300 --results tests/storage/power_loss.jsonl
    python -m tests.campaign damage --seeds 3 --results tests/storage/damage.jsonl       # a seed is 500 flipped bits and one file of each class

Runs what Bazel built, part after part, each a process with seeds of its own that begin behind the last one in FILE, and appends a line to FILE for
each (tests/support/results.py). Ends at the first part that fails: exit status 1, the program's output is printed. `--report` prints the totals of FILE.
tests.crash.campaign and tests.crash.network_campaign have files of the same form.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cluster import REPOSITORY
from tests.support.results import Results

DAMAGE_FLIPS = 500


@dataclass(frozen=True)
class Program:
    path: str
    part: int  # seeds of a part
    arguments: Callable[[int, int], list[str]]  # of the first seed and how many
    figures: Callable[[str], dict[str, int]]  # of the output


def matched(pattern: str) -> Callable[[str], dict[str, int]]:
    def figures(output: str) -> dict[str, int]:
        found = re.search(pattern, output)
        return {name: int(value) for name, value in found.groupdict().items()} if found else {}

    return figures


def damage_figures(output: str) -> dict[str, int]:
    """Adds up the two tables of damage_test: flipped bits, then damaged files; a column for each outcome."""
    total: Counter[str] = Counter()
    for kind, table in zip(("flips", "files"), re.split(r"^file  .*$", output, flags=re.M)[1:]):
        for line in table.splitlines():
            row = re.match(r"^\S.{19} +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", line)
            if row:
                counts = [int(n) for n in row.groups()]
                total[kind] += counts[0]
                for name, count in zip(("refused", "identical", "older_checkpoint", "assertion", "wrong"), counts[1:]):
                    total[f"{kind}_{name}"] += count
    return dict(total)


PROGRAMS = {
    "sim": Program(
        "tests/sim/sim_test", 100_000,
        lambda first, seeds: ["--gtest_filter=Simulation.RandomWorldsKeepEveryPromise", "--seeds", str(seeds), "--first", str(first)],
        matched(r"(?P<worlds>\d+) worlds from seed \d+, (?P<moves>\d+) moves.*\brollbacks (?P<rollbacks>\d+)"),
    ),
    "power-loss": Program(
        "tests/storage/power_loss_test", 50,
        lambda first, seeds: [f"--seeds={seeds}", f"--seed={first}"],
        matched(r"seeds from \d+: (?P<cuts>\d+) power cuts, (?P<during_recovery>\d+) of them"),
    ),
    "damage": Program(
        "tests/storage/damage_test", 1,
        lambda first, seeds: [f"--flips={DAMAGE_FLIPS}", f"--seed={first}"],
        damage_figures,
    ),
}  # fmt: skip


def run_part(program: Program, first: int, seeds: int, results: Results) -> bool:
    start = time.monotonic()
    done = subprocess.run([REPOSITORY / "bazel-bin" / program.path, *program.arguments(first, seeds)], capture_output=True, text=True)
    figures = program.figures(done.stdout)
    good = done.returncode == 0 and bool(figures)
    line = results.add(first, seeds, time.monotonic() - start, "ok" if good else f"exit status {done.returncode}", figures)
    print(line, flush=True)
    if not good:
        print(done.stdout[-20000:], done.stderr[-5000:], sep="\n")
    return good


def report(lines: list[dict[str, Any]]) -> None:
    total: Counter[str] = Counter()
    for line in lines:
        total.update({name: value for name, value in line.items() if isinstance(value, (int, float)) and name != "seed"})
    failed = [line for line in lines if line["result"] != "ok"]
    print(f"{len(lines)} parts, {len(failed)} failed: {dict(total)}")
    for line in failed:
        print(f"seed {line['seed']}: {line['result']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--seeds", type=int, default=0, help="how many, in this call")
    parser.add_argument("--seed", type=int, default=1, help="the first one, if the results file has none that is later")
    parser.add_argument("--results", type=Path, help="JSON lines: read to go on, appended to")
    parser.add_argument("--report", action="store_true", help="print the totals of --results and end")
    arguments = parser.parse_args()
    program, results, left = PROGRAMS[arguments.program], Results(arguments.results), arguments.seeds
    good = True
    while good and left > 0 and not arguments.report:
        seeds = min(program.part, left)
        good = run_part(program, results.next_seed(arguments.seed), seeds, results)
        left -= seeds
    report(results.lines)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
