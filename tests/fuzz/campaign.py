"""Runs the libFuzzer programs of tests/fuzz one after another and keeps what reached new code. Called by tools/fuzz, which builds them first.

    tools/fuzz [--seconds N | --runs N] [--seed S] [--results FILE] [--report] [TARGET...]     default: 60 seconds for each of all targets

`--results FILE` (JSON lines, appended to after each part of at most --part seconds) makes campaigns add up: with --runs N a later call goes on,
with the next seed, until the executions of a target in FILE sum up to N. `--report` prints those sums and ends.

An input that breaks a promise is left as fuzz-TARGET-*, and the campaign of that target ends with an error; `bazel test //tests/fuzz:TARGET_test`
shows it again once it is in tests/fuzz/corpus/TARGET. A corpus is at most 120 KB in 1,000 files: the largest inputs go first, seeds
written by hand stay.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent
CORPUS_BYTES_MAX = 120_000
CORPUS_FILES_MAX = {"server": 150}  # tools/test plays them all, and a sequence of calls takes 20 ms
CORPUS_FILES_MAX_OTHERS = 1000
# The entropic schedule costs more than most targets: without it two to eight times as many inputs are tried.
LIMITS = ("-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=512", "-print_final_stats=1", "-entropic=0")
# A server in the process has threads: what it holds when a sequence is over is no leak, and long sequences are wanted from the beginning.
FLAGS = {"server": ("-detect_leaks=0", "-len_control=0", "-max_len=512", "-timeout=300", "-rss_limit_mb=3072")}
# No stacks of allocations and a small quarantine: a campaign gets twice as far, and what it finds is shown again with whole stacks.
CAMPAIGN = "detect_leaks=1:allocator_may_return_null=0:malloc_context_size=0:quarantine_size_mb=16:thread_local_quarantine_size_kb=64"
FINDING = "detect_leaks=1:allocator_may_return_null=0"


class Part(NamedTuple):
    """One life of a libFuzzer process."""

    executions: int
    seconds: float
    log: str
    ok: bool


class Target:
    """A fuzz target: its program (a copy: a build may replace the original meanwhile), its kept corpus, what this campaign found."""

    def __init__(self, name: str, binaries: Path, work: Path) -> None:
        self.name = name
        self.program = Path(shutil.copy(binaries / f"{name}_fuzz", work))
        self.corpus = FOLDER / "corpus" / name
        self.found = work / "found"
        self.corpus.mkdir(parents=True, exist_ok=True)
        self.found.mkdir()

    def run(self, seed: int, runs: int | None, seconds: float | None) -> Part:
        flags = [*LIMITS, *FLAGS.get(self.name, ()), f"-seed={seed}", f"-artifact_prefix=fuzz-{self.name}-"]
        flags += [f"-runs={runs}"] * (runs is not None) + [f"-max_total_time={max(1, round(seconds or 0))}"] * (seconds is not None)
        start = time.monotonic()
        ended = self._call(CAMPAIGN, *flags, self.found, self.corpus)
        executions = re.search(r"^stat::number_of_executed_units: *(\d+)", ended.stdout, re.MULTILINE)
        artifact = re.search(rf"Test unit written to (fuzz-{self.name}-\S+)", ended.stdout)
        log = ended.stdout[-6000:]
        if artifact:
            log += "\nAlone, with whole stacks:\n" + self._call(FINDING, artifact[1]).stdout[-6000:]
        return Part(int(executions[1]) if executions else 0, time.monotonic() - start, log, ended.returncode == 0)

    def keep_found(self) -> int:
        """The smallest inputs that reach all that is known to be reached, within the limits. Returns how many."""
        with tempfile.TemporaryDirectory(prefix="ballast-fuzz-") as work:
            covering = Path(work)
            self._call(CAMPAIGN, *FLAGS.get(self.name, ()), "-set_cover_merge=1", covering, self.corpus, self.found)
            kept = sorted(covering.iterdir(), key=lambda f: f.stat().st_size)[: CORPUS_FILES_MAX.get(self.name, CORPUS_FILES_MAX_OTHERS)]
            while kept and sum(f.stat().st_size for f in kept) > CORPUS_BYTES_MAX:
                kept.pop()
            if not kept:
                return 0  # the merge itself failed: nothing is thrown away
            for file in self.corpus.iterdir():
                if not file.name.startswith("seed-"):
                    file.unlink()
            for file in kept:
                shutil.copy(file, self.corpus / file.name)
        return len(list(self.corpus.iterdir()))

    def _call(self, asan: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(self.program), *map(str, arguments)]
        environment = os.environ | {"ASAN_OPTIONS": asan, "UBSAN_OPTIONS": "print_stacktrace=1"}
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")


class Results:
    """The results file, if there is one: a line for each part."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []

    def executions(self, target: str) -> int:
        return sum(line["executions"] for line in self.lines if line["target"] == target)

    def next_seed(self, target: str, first: int) -> int:
        return max((line["seed"] + 1 for line in self.lines if line["target"] == target), default=first)

    def add(self, **line: Any) -> None:
        self.lines.append(line)
        if self.file:
            with self.file.open("a") as out:
                out.write(json.dumps(line) + "\n")

    def report(self) -> None:
        for target in sorted({line["target"] for line in self.lines}):
            lines = [line for line in self.lines if line["target"] == target]
            bad = sum(line["result"] != "ok" for line in lines)
            seconds = sum(line["seconds"] for line in lines)
            seeds = f"seeds {lines[0]['seed']} to {lines[-1]['seed']}"
            print(f"{target}: {self.executions(target)} executions in {seconds:.0f} s, {seeds}, {bad} of {len(lines)} parts ended with a finding")


def revision() -> str:
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=FOLDER, stdout=subprocess.PIPE, text=True, check=False)
    return head.stdout.strip()


def campaign(target: Target, results: Results, options: argparse.Namespace) -> bool:
    """False when a promise was broken."""
    start, before = time.monotonic(), results.executions(target.name) if options.results else 0
    done = before
    while options.runs is None or done < options.runs:
        left = None if options.seconds is None else options.seconds - (time.monotonic() - start)
        if left is not None and left <= 0:
            break
        seed = results.next_seed(target.name, options.seed)
        part = target.run(seed, None if options.runs is None else options.runs - done, options.part if left is None else min(left, options.part))
        done += part.executions
        result = "ok" if part.ok else "finding"
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        results.add(target=target.name, seed=seed, executions=part.executions, seconds=round(part.seconds, 1), result=result, revision=revision(), at=at)
        if not part.ok:
            print(part.log, flush=True)
            return False
    print(f"{target.name}: {done - before} executions, {time.monotonic() - start:.0f} s, {target.keep_found()} inputs kept", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--seconds", type=float, help="for each target")
    limit.add_argument("--runs", type=int, help="executions of each target; with --results: in all")
    parser.add_argument("--seed", type=int, default=1, help="of the first part of each target; part n has seed + n")
    parser.add_argument("--part", type=float, default=300, help="seconds after which libFuzzer begins anew with the next seed")
    parser.add_argument("--results", type=Path, help="JSON lines: read to go on, appended to")
    parser.add_argument("--report", action="store_true", help="print the totals of --results and end")
    parser.add_argument("--binaries", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    options = parser.parse_args()
    results = Results(options.results)
    if options.report:
        results.report()
        return 0
    if options.runs is None and options.seconds is None:
        options.seconds = 60
    failed = False
    for name in options.targets or sorted(f.name.removesuffix("_fuzz.cc") for f in FOLDER.glob("*_fuzz.cc")):
        with tempfile.TemporaryDirectory(prefix="ballast-fuzz-") as work:
            failed = not campaign(Target(name, options.binaries, Path(work)), results, options) or failed
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
