"""The rival: PyTorch DistributedDataParallel over gloo, two processes with one thread each, the demo's model and data in memory."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from tools.bench import cpu, plain

RANKS = 2
WARM_UP_STEPS = 5


@dataclass(frozen=True)
class DdpResult:
    rows_per_second: float
    cpu_seconds: float  # of all ranks
    rows: int
    other_cores: float  # busy with other processes, from the start of the ranks to their end


def measure(folder: Path, tokens: np.ndarray, labels: np.ndarray, classes: int, epochs: int, batch_rows: int) -> DdpResult:
    """Only the loop is timed: not the start of the processes, not the first steps."""
    data, meeting = folder / "ddp.npz", folder / f"ddp-{os.getpid()}-{time.monotonic_ns()}"
    np.savez(data, tokens=tokens, labels=labels)
    results = mp.get_context("spawn").SimpleQueue()
    others, reaped = cpu.Others(), _cpu(resource.RUSAGE_CHILDREN)
    mp.spawn(_rank, (str(data), str(meeting), classes, epochs, batch_rows, results), nprocs=RANKS)
    parts = [results.get() for _ in range(RANKS)]
    meeting.unlink(missing_ok=True)
    rows = sum(p[0] for p in parts)
    other_cores = others.cores(_cpu(resource.RUSAGE_CHILDREN) - reaped)
    return DdpResult(rows / max(p[1] for p in parts), sum(p[2] for p in parts), rows, other_cores)


def _rank(rank: int, data: str, meeting: str, classes: int, epochs: int, batch_rows: int, results: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS)
    with np.load(data) as arrays:
        x, y = torch.from_numpy(arrays["tokens"]), torch.from_numpy(arrays["labels"])
    model = torch.nn.parallel.DistributedDataParallel(plain.new_model(classes, seed=0))
    optimizer = torch.optim.Adam(model.parameters(), lr=plain.LEARNING_RATE)

    def step(rows: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()

    for _ in range(WARM_UP_STEPS):
        step(torch.arange(batch_rows))
    dist.barrier()
    started, cpu_before = time.monotonic(), _cpu()
    rows = 0
    for epoch in range(epochs):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(epoch))
        for step_rows in order.split(batch_rows * RANKS):
            mine = step_rows[rank::RANKS]
            step(mine)
            rows += len(mine)
    dist.barrier()
    results.put((rows, time.monotonic() - started, _cpu() - cpu_before))
    dist.destroy_process_group()


def _cpu(whose: int = resource.RUSAGE_SELF) -> float:
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime
