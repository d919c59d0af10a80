"""Kills servers and workers while they train, again and again, and checks after each kill that nothing that was promised is gone.

    python -m tests.crash.campaign --kills N --seed S [--duration SECONDS] [--results FILE] [--keep DIR] [--report]

A campaign is a series of rounds. A round is a new cluster (2 servers, 2 workers) with settings that its seed chooses: fp32 or int8, staleness
0, 1 or unlimited, the counter model or an MLP with Adam, checkpoints or none, the whole log or only what is needed. A process dies by kill -9,
or a server ends itself at one of the points of server/failpoint_list.h (kill, exit, or an error there); up to two more times while it
recovers; sometimes another process dies at the same time. Beside the run that is fed, small runs come and go. Checked (tests/crash/oracles.py):
  - after each death of a server: its replay and the numpy replay of the log it left agree; server 0 has every version that a feed was told of
  - after each start: the server recovered just that version and hash; once all serve, somebody is acknowledged within 10 s
  - all the time: a version that a reader of either server saw never goes away and never changes; memory stays below a limit
  - at the end of a round: the epoch commits with each row counted once (counter model: each slot, by a reader), no batch is in two decisions,
    and the checkpoint of the live state has the hash of a replay of the whole log.
When the log is cut as in everyday use it cannot be replayed from its beginning: then the servers' own checks at each start (hash roots, block
digests), the counts, the readers and `ballastctl ckpt verify` remain. So it is with `--durability checkpoint`, where a death of a server takes
the run back to its newest checkpoint and the driver feeds the missing batches again at the end.

`--results FILE` (JSON lines, appended after each round) makes campaigns add up: a later call goes on with the next seed. `--report` prints the
totals of FILE and the points that never fired. Needs the -mutable test binaries. Exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.crash import points
from tests.crash.round import Round, Settings, random_kills

ROUND_KILLS = 24


def play(seed: int, kills: int, keep: Path | None, durability: str) -> dict[str, Any]:
    """One round; the line for the results file."""
    generator = random.Random(seed)
    settings = Settings.volatile(generator) if durability == "checkpoint" else Settings.random(generator)
    print(f"seed {seed}  {settings}", flush=True)
    start = time.monotonic()
    line: dict[str, Any] = dict(seed=seed, at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), settings=vars(settings))
    with tempfile.TemporaryDirectory(prefix="ballast-campaign-") as temporary:
        played = Round(Path(temporary), generator, settings, lambda text: print(text, flush=True))
        try:
            played.run(random_kills(generator, kills, settings))
            line["result"] = "ok"
        except Exception as error:
            traceback.print_exc()
            line["result"] = f"{type(error).__name__}: {str(error)[:500]}"
            if keep is not None:
                shutil.copytree(temporary, keep / f"seed-{seed}", dirs_exist_ok=True)
        coverage = played.coverage()
    line |= played.figures()
    line |= dict(seconds=round(time.monotonic() - start, 1), passed=dict(coverage.passed), fired=dict(coverage.fired))
    return line


def report(lines: list[dict[str, Any]]) -> None:
    kinds: Counter[str] = Counter()
    total = points.Coverage(Counter(), Counter())
    for line in lines:
        kinds.update(line["kinds"])
        total.add(points.Coverage(Counter(line["passed"]), Counter(line["fired"])))
    heals = sorted(h for line in lines for h in line["heals"])
    progress = max((line["progress_max"] for line in lines), default=0.0)
    print(f"{len(lines)} rounds, {sum(kinds.values())} kills in {sum(line['seconds'] for line in lines):.0f} s: {dict(kinds)}")
    if heals:
        print(f"kill to next acknowledgement: median {heals[len(heals) // 2]:.2f} s, slowest {heals[-1]:.2f} s")
        print(f"all serving to next acknowledgement: at most {progress:.2f} s")
    rows, pulls = (sum(line[figure] for line in lines) for figure in ("rows", "pulls"))
    print(f"rows {rows}, pulls {pulls}, memory of a server at most {max((line['rss_max'] for line in lines), default=0) >> 20} MiB")
    for line in lines:
        if line["result"] != "ok":
            print(f"seed {line['seed']}: {line['result']}")
    names = [point.name for point in points.table()]
    passed, fired = (sum(counts[n] > 0 for n in names) for counts in (total.passed, total.fired))
    print(f"points: {len(names)}, passed {passed}, fired {fired} ({sum(total.fired.values())} times)")
    print("never passed:", " ".join(n for n in names if not total.passed[n]) or "none")
    print("never fired:", " ".join(n for n in names if not total.fired[n]) or "none")


def read_results(file: Path | None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in this call")
    parser.add_argument("--seed", type=int, default=1, help="of the first round of the results file; round n has seed + n")
    parser.add_argument("--durability", choices=["log", "checkpoint"], default="log", help="of the runs; results files hold one of them")
    parser.add_argument("--duration", type=float, default=float("inf"), help="seconds after which no further round begins")
    parser.add_argument("--results", type=Path, help="JSON lines: read to go on, appended to")
    parser.add_argument("--keep", type=Path, help="folder for the data of rounds that failed")
    parser.add_argument("--report", action="store_true", help="print the totals of --results and end")
    arguments = parser.parse_args()
    lines = read_results(arguments.results)
    failed = False
    start, killed = time.monotonic(), 0
    while not arguments.report and not failed and killed < arguments.kills and time.monotonic() - start < arguments.duration:
        line = play(arguments.seed + len(lines), min(ROUND_KILLS, arguments.kills - killed), arguments.keep, arguments.durability)
        killed += sum(line["kinds"].values())
        failed = line["result"] != "ok"
        lines.append(line)
        if arguments.results:
            with arguments.results.open("a") as out:
                out.write(json.dumps(line) + "\n")
    report(lines)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
