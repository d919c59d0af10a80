"""A cluster of real processes for a test: start, kill -9, restart, wait, scrape.

Unlike `ballastctl dev`, every process can be killed and started alone, with its own flags. Nothing sleeps for luck: every wait has a condition,
a time limit and a message that says what it waited for.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
# How many times slower and larger the programs are than usual, as under a sanitizer (tools/sanitize sets it): deadlines and memory limits of
# tests grow by it, and clusters end in order, so that leaks are found.
SANITIZED = float(os.environ.get("BALLAST_SANITIZED", "0"))
SLOWNESS = max(1.0, SANITIZED)
T = TypeVar("T")


def binary(name: str) -> str:
    """Path of a built program: beside the others in BALLAST_BIN, else in Bazel's output."""
    folders = {"ballast-server": "server", "ballast-server-mutable": "server", "ballast-worker": "worker", "ballastctl": "tools/ballastctl"}
    if os.environ.get("BALLAST_BIN"):
        return str(Path(os.environ["BALLAST_BIN"]) / name)
    path = REPOSITORY / "bazel-bin" / folders[name] / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built: run `bazel build //...` (tools/test does)")
    return str(path)


def patience(seconds: float) -> float:
    """How long to wait for something that takes a usual program at most `seconds`."""
    return seconds * SLOWNESS


def memory(size: int) -> int:
    """What may take a usual program `size` bytes: ASan keeps 256 MiB of what was freed, and a margin around every object."""
    return size if not SANITIZED else int(size * SLOWNESS) + (256 << 20)


def wait_for(what: str, condition: Callable[[], T], seconds: float = 30) -> T:
    """The first true value of `condition`; TimeoutError naming `what` after patience(`seconds`)."""
    seconds = patience(seconds)
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def free_address() -> str:
    """A free port below those that Linux gives to outgoing connections: one of these could take the place of a process that is away, even one
    that is made to reach it."""
    while True:
        address = ("127.0.0.1", random.randrange(10_000, 32_768))
        with socket.socket() as probe:
            try:
                probe.bind(address)
            except OSError:
                continue
        return f"{address[0]}:{address[1]}"


class Process:
    """One server or worker. It keeps its address, folder and log over restarts."""

    def __init__(self, name: str, command: list[str], directory: Path, environment: dict[str, str] | None = None):
        self.name = name
        self.command = command
        self.directory = directory
        self.ready_file = directory / f"{name}.ready"
        self.log = directory / f"{name}.log"
        self.environment = environment or {}
        self.address = free_address()
        self.metrics_address = free_address()
        self.popen: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._log_start = 0

    def start(self, wait: bool = True, environment: dict[str, str] | None = None) -> None:
        """`environment`: further variables, for this life only."""
        assert not self.alive(), f"{self.name} runs already"
        self.ready_file.unlink(missing_ok=True)
        self.starts += 1
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.popen = subprocess.Popen(
                [*self.command, "--listen", self.address, "--metrics-listen", self.metrics_address, "--ready-file", str(self.ready_file), "--log-format", "text"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **self.environment, **(environment or {})},
            )  # fmt: skip
        if wait:
            self.await_ready()

    def await_ready(self, seconds: float = 60) -> None:
        def ready() -> bool:
            if not self.alive():
                raise RuntimeError(f"{self.name} ended with {self.popen and self.popen.returncode}:\n{self.log_tail()}")
            return self.is_ready()

        wait_for(f"{self.name} to serve ({self.log})", ready, seconds)

    def is_ready(self) -> bool:
        """Whether this life of the process serves; learns its addresses."""
        try:
            state = json.loads(self.ready_file.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if self.popen is None or state["pid"] != self.popen.pid:
            return False
        self.address, self.metrics_address = state["address"], state["metrics_address"]
        return True

    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def kill(self, sig: int = signal.SIGKILL) -> None:
        assert self.popen is not None
        self.popen.send_signal(sig)
        if sig in (signal.SIGKILL, signal.SIGTERM):
            self.popen.wait(patience(60))

    def log_tail(self, characters: int = 3000) -> str:
        return self.log.read_text(errors="replace")[-characters:] if self.log.exists() else ""

    def log_since_start(self) -> str:
        """What the process wrote since it was started last."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def metrics(self) -> dict[str, float]:
        """Samples of /metrics: {'name{label="x"}': value}."""
        text = urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=patience(5)).read().decode()
        return {m[1]: float(m[2]) for m in re.finditer(r"^([a-zA-Z_:].*) ([^ ]+)$", text, re.M)}

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of `name` whose labels include `labels`."""
        total = 0.0
        for sample, value in self.metrics().items():
            base, _, rest = sample.partition("{")
            if base == name and all(f'{key}="{wanted}"' in rest for key, wanted in labels.items()):
                total += value
        return total


class Cluster:
    """`servers` x ballast-server and `workers` x ballast-worker below `directory`. Use as a context manager.

    In values of `environment`, {name} stands for the process's name. `starter` brings up each process for the first time.
    """

    def __init__(self, directory: Path, servers: int = 1, workers: int = 1, server_flags: tuple[str, ...] = (), worker_flags: tuple[str, ...] = (),
                 server_binary: str = "ballast-server", environment: dict[str, str] | None = None,
                 starter: Callable[[Process], None] = Process.start):  # fmt: skip
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.server_flags, self.worker_flags = server_flags, worker_flags
        self.environment = environment or {}
        self.server_binary = server_binary
        self.starter = starter
        self.servers: list[Process] = []
        self.workers: list[Process] = []
        self._servers_wanted, self._workers_wanted = servers, workers

    def __enter__(self) -> Cluster:
        try:
            for index in range(self._servers_wanted):
                self.add_server(index)
            for index in range(self._workers_wanted):
                self.add_worker(index)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add_server(self, index: int) -> Process:
        command = [binary(self.server_binary), "--dir", str(self.directory / f"server-{index}"), "--index", str(index), "--servers", str(self._servers_wanted)]
        if index > 0:
            command += ["--coordinator", self.servers[0].address]
        process = self._process(f"server-{index}", [*command, *self.server_flags])
        self.servers.append(process)
        self.starter(process)
        return process

    def add_worker(self, index: int) -> Process:
        name = f"worker-{index}"
        command = [binary("ballast-worker"), "--server", self.servers[0].address, "--dir", str(self.directory / name), "--name", name, "--threads", "1"]
        process = self._process(name, [*command, *self.worker_flags])
        self.workers.append(process)
        self.starter(process)
        return process

    def _process(self, name: str, command: list[str]) -> Process:
        return Process(name, command, self.directory, {k: v.replace("{name}", name) for k, v in self.environment.items()})

    @property
    def address(self) -> str:
        return self.servers[0].address

    def processes(self) -> list[Process]:
        return self.servers + self.workers

    def stop(self) -> None:
        for process in [*self.workers, *self.servers]:  # server 0's last checkpoint needs the others
            if process.alive():
                process.kill(signal.SIGTERM if SANITIZED else signal.SIGKILL)

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs ballastctl against this cluster."""
        done = subprocess.run([binary("ballastctl"), "--server", self.address, *arguments], capture_output=True, text=True, timeout=patience(120))
        if check and done.returncode != 0:
            raise RuntimeError(f"ballastctl {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done

    def ctl_json(self, *arguments: str) -> object:
        return json.loads(self.ctl("--json", *arguments).stdout)
