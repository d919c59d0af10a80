"""A cluster whose links go through proxies: what one process says to another, each way can be broken alone.

    control    feeders and the driver -> server 0        (FeederJob(cluster.control.address, ...))
    work       workers -> server 0: Attach, Work, and model files
    shards[s]  workers -> server s: Push and Pull
    follow     servers above 0 -> server 0
    feeds[w]   feeders -> worker w

Tests read a cluster back through cluster.address, which no proxy can break.
"""

from __future__ import annotations

import socket
from pathlib import Path

from tests.support.cluster import Cluster, Process, binary
from tests.support.proxy import Proxy


class _Advertised(Process):
    """A worker that listens elsewhere than it says: its ready file holds what it says."""

    def __init__(self, name: str, command: list[str], directory: Path) -> None:
        super().__init__(name, command, directory)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.listens = self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def is_ready(self) -> bool:
        ready = super().is_ready()
        self.address = self.listens
        return ready


class ProxiedCluster(Cluster):
    def __init__(self, directory: Path, servers: int = 2, workers: int = 2, server_flags: tuple[str, ...] = (), worker_flags: tuple[str, ...] = ()):
        super().__init__(directory, servers, workers, server_flags, worker_flags)
        self.control, self.work, self.follow = Proxy(), Proxy(), Proxy()
        self.shards = [Proxy() for _ in range(servers)]
        self.feeds = [Proxy() for _ in range(workers)]

    def __enter__(self) -> ProxiedCluster:
        super().__enter__()
        return self

    def proxies(self) -> list[Proxy]:
        return [self.control, self.work, self.follow, *self.shards, *self.feeds]

    def add_server(self, index: int) -> Process:
        process = self.server_process(f"server-{index}", index, self.directory / f"server-{index}", self.shards[index].address, self.follow.address)
        self.servers.append(process)
        process.start()
        self.shards[index].target = process.address
        if index == 0:
            self.control.target = self.work.target = self.follow.target = process.address
        return process

    def server_process(self, name: str, index: int, directory: Path, advertise: str, coordinator: str) -> Process:
        command = [binary(self.server_binary), "--dir", str(directory), "--index", str(index), "--servers", str(self._servers_wanted)]
        command += ["--advertise", advertise, *(("--coordinator", coordinator) if index else ())]
        return self._process(name, [*command, *self.server_flags])

    def add_worker(self, index: int) -> Process:
        name = f"worker-{index}"
        command = [binary("ballast-worker"), "--server", self.work.address, "--dir", str(self.directory / name), "--name", name, "--threads", "1"]
        process = _Advertised(name, [*command, "--advertise", self.feeds[index].address, *self.worker_flags], self.directory)
        self.feeds[index].target = process.address
        self.workers.append(process)
        process.start()
        return process

    def stop(self) -> None:
        super().stop()
        for proxy in self.proxies():
            proxy.close()
