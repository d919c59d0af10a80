"""CPU seconds of processes and threads, from /proc (Linux). Times are user + system."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def _stat(path: Path) -> list[str]:
    """The fields after the name, so index 0 is field 3 of proc(5); empty when the process is gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def seconds(pid: int, with_reaped: bool = False) -> float:
    """`with_reaped`: also of its children that ended and were waited for."""
    fields = _stat(_PROC / str(pid) / "stat")
    return sum(int(f) for f in fields[11 : 15 if with_reaped else 13]) / _TICK


def descendants(root: int) -> list[int]:
    parents = {int(p.name): fields[1] for p in _PROC.iterdir() if p.name.isdigit() and (fields := _stat(p / "stat"))}
    found, todo = [], [root]
    while todo:
        children = [pid for pid, parent in parents.items() if int(parent) == todo[0]]
        found += children
        todo = todo[1:] + children
    return found


def program(pid: int) -> str:
    """The name of the executable; empty when it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def by_kind(servers: Iterable[int], workers: Iterable[int], driver: int) -> Counter[str]:
    """Seconds so far of: servers, workers, JVMs (Spark's driver and executors), feeders (Spark's Python workers), driver (this program)."""
    kinds: Counter[str] = Counter(driver=seconds(driver))
    kinds["servers"] = sum(seconds(p) for p in servers)
    kinds["workers"] = sum(seconds(p) for p in workers)
    for pid in descendants(driver):
        if (name := program(pid)) == "java":
            kinds["JVMs"] += seconds(pid)
        elif name.startswith("python"):
            kinds["feeders"] += seconds(pid, with_reaped=True)
    return kinds


Threads = dict[tuple[int, int], tuple[str, float]]  # (process, thread) -> its name and seconds so far


def by_thread(pids: Iterable[int]) -> Threads:
    """Of the live threads."""
    threads: Threads = {}
    for pid in pids:
        for task in (_PROC / str(pid) / "task").iterdir():
            if fields := _stat(task / "stat"):
                threads[pid, int(task.name)] = program(int(task.name)), sum(int(f) for f in fields[11:13]) / _TICK
    return threads


def spent(before: Threads, after: Threads) -> Counter[str]:
    """Seconds by name, summed over threads with one name; threads that ended in between are missing."""
    names: Counter[str] = Counter()
    for thread, (name, total) in after.items():
        names[name] += total - before.get(thread, (name, 0.0))[1]
    return names


class Others:
    """How busy everybody else keeps this machine, in cores: a rate that was measured beside a compiler says little."""

    def __init__(self) -> None:
        self._busy, self._time = _machine_seconds(), time.monotonic()

    def cores(self, own_seconds: float) -> float:
        """Since this object was made. `own_seconds`: CPU that the measured processes used meanwhile."""
        return max(0.0, (_machine_seconds() - self._busy - own_seconds) / (time.monotonic() - self._time))


def _machine_seconds() -> float:
    """Not idle: user, nice, system, interrupts, stolen."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(f) for f in (_PROC / "stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICK
