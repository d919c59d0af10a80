"""A cluster for a benchmark: 2 servers and 2 workers with one compute thread each, as the demo starts them, stopped and removed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tools.demo_job.job import ctl


@contextmanager
def benchmark_cluster(folder: Path) -> Iterator[dict[str, Any]]:
    """What `ballastctl dev up --json` prints: "server" is the address of server 0, "processes" have name, pid and metrics_address."""
    directory = str(folder / "cluster")
    _down(directory)  # of a benchmark that was killed
    try:
        yield ctl("dev", "up", "--servers", "2", "--workers", "2", "--dir", directory, "--worker-flag=--threads=1")
    finally:
        _down(directory)


def pids(cluster: dict[str, Any], kind: str) -> list[int]:
    """Of "server" or "worker"."""
    return [p["pid"] for p in cluster["processes"] if p["name"].startswith(kind)]


def _down(directory: str) -> None:
    with suppress(SystemExit):  # there may be none
        ctl("dev", "down", "--rm", "--dir", directory)
