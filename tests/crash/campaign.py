"""Kills servers and workers while they train, again and again, and checks after each kill that nothing that was promised is gone.

    python -m tests.crash.campaign --kills N --seed S [--spark] [--durability checkpoint] [--duration SECONDS] [--results FILE] [--keep DIR] [--report]

A campaign is a series of rounds. A round is a new cluster (2 servers, 2 workers) with settings that its seed chooses: fp32 or int8, staleness
0, 1 or unlimited, the counter model or an MLP with Adam, checkpoints or none, the whole log or only what is needed. A process dies by kill -9,
or a server ends itself at one of the points of server/failpoint_list.h (kill, exit, or an error there); up to two more times while it
recovers, sometimes because an allocation fails; sometimes another process dies at the same time; in some rounds the run goes back to its checkpoints now and then, which a death may cut
in two. Points that fired least so far come first, so that a campaign fires them all. Beside the run that is fed, small runs come and go, and are
rolled back too. Threads feed, through the code of ballast.spark; with `--spark` a real PySpark. Checked (tests/crash/oracles.py):
  - after each death of a server: its replay and the numpy replay of the log it left agree; server 0 has every version that a feed was told of
  - after each start: the server recovered just that version and hash; once all serve, somebody is acknowledged within 10 s
  - all the time: a version that a reader of either server saw never goes away and never changes; memory stays below a limit
  - at the end of a round: the epoch commits with each row counted once (counter model: each slot, by a reader), no batch is in two decisions,
    and the checkpoint of the live state has the hash of a replay of the whole log.
When the log is cut as in everyday use it cannot be replayed from its beginning: then the servers' own checks at each start (hash roots, block
digests), the counts, the readers and `ballastctl ckpt verify` remain. So it is with `--durability checkpoint`, where a death of a server takes
the run back to its newest checkpoint and the driver feeds the missing batches again at the end.

`--results FILE` (tests/support/results.py; a line for each round) makes campaigns add up: a later call goes on with the next seed. `--report` prints
the totals of FILE and the points that never fired. Needs the -mutable test binaries. Exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, Optional

from tests.crash import points
from tests.crash.kills import Settings, random_kills
from tests.crash.round import Round
from tests.support.results import Results
from tests.support.spark_session import start_spark

ROUND_KILLS = 24
SPARK_KILLS = 12


def play(seed: int, kills: int, keep: Optional[Path], settings: Settings, generator: random.Random, fired: Counter[str], spark: Any) -> Round:
    """One round, whose `failure` says how it ended."""
    print(f"seed {seed}  {settings}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ballast-campaign-") as temporary:
        played = Round(Path(temporary), generator, settings, lambda text: print(text, flush=True), spark=spark, epochs=2 * kills if spark else 1)
        try:
            played.run(random_kills(generator, kills, settings, fired))
        except Exception as error:
            traceback.print_exc()
            played.failure = f"{type(error).__name__}: {str(error)[:500]}"
            if keep is not None:
                shutil.copytree(temporary, keep / f"seed-{seed}", dirs_exist_ok=True)
        played.covered = played.coverage()
    return played


def settings_of(arguments: argparse.Namespace, generator: random.Random) -> Settings:
    if arguments.spark:
        return Settings.with_spark(generator)
    return Settings.volatile(generator) if arguments.durability == "checkpoint" else Settings.random(generator)


def fired_in(lines: list[dict[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for line in lines:
        total.update(line["fired"])
    return total


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
    rows, pulls, rollbacks = (sum(line.get(figure, 0) for line in lines) for figure in ("rows", "pulls", "rollbacks"))
    print(f"rows {rows}, pulls {pulls}, rollbacks of the run that is fed {rollbacks}, memory of a server at most {max((line['rss_max'] for line in lines), default=0) >> 20} MiB")
    for line in lines:
        if line["result"] != "ok":
            print(f"seed {line['seed']}: {line['result']}")
    names = [point.name for point in points.table()]
    passed, fired = (sum(counts[n] > 0 for n in names) for counts in (total.passed, total.fired))
    print(f"points: {len(names)}, passed {passed}, fired {fired} ({sum(total.fired.values())} times)")
    print("never passed:", " ".join(n for n in names if not total.passed[n]) or "none")
    print("never fired:", " ".join(n for n in names if not total.fired[n]) or "none")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in this call")
    parser.add_argument("--seed", type=int, default=1, help="of the first round, if the results file has none that is later")
    parser.add_argument("--spark", action="store_true", help="feed by a real PySpark")
    parser.add_argument("--durability", choices=["log", "checkpoint"], default="log", help="of the runs; results files hold one of them")
    parser.add_argument("--duration", type=float, default=float("inf"), help="seconds after which no further round begins")
    parser.add_argument("--results", type=Path, help="JSON lines: read to go on, appended to")
    parser.add_argument("--keep", type=Path, help="folder for the data of rounds that failed")
    parser.add_argument("--report", action="store_true", help="print the totals of --results and end")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    spark = start_spark() if arguments.spark and not arguments.report else None
    failed = False
    start, killed = time.monotonic(), 0
    while not arguments.report and not failed and killed < arguments.kills and time.monotonic() - start < arguments.duration:
        seed, begun = results.next_seed(arguments.seed), time.monotonic()
        generator = random.Random(seed)
        settings = settings_of(arguments, generator)
        kills = min(SPARK_KILLS if spark else ROUND_KILLS, arguments.kills - killed)
        played = play(seed, kills, arguments.keep, settings, generator, fired_in(results.lines), spark)
        figures = dict(settings=vars(settings), **played.figures(), passed=dict(played.covered.passed), fired=dict(played.covered.fired))
        results.add(seed, 1, time.monotonic() - begun, played.failure or "ok", figures)
        killed += sum(played.kinds.values())
        failed = bool(played.failure)
    report(results.lines)
    if spark is not None:
        spark.stop()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
