"""CPU seconds of processes and threads, from /proc (Linux). Times are user + system."""

from __future__ import annotations

import os
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


def by_thread(pids: Iterable[int]) -> Counter[str]:
    """Seconds so far of the live threads, summed over those with the same name in all processes."""
    threads: Counter[str] = Counter()
    for pid in pids:
        for task in (_PROC / str(pid) / "task").iterdir():
            fields = _stat(task / "stat")
            name = (task / "comm").read_text().strip() if fields else ""
            threads[name] += sum(int(f) for f in fields[11:13]) / _TICK
    return threads
