"""Bit exactness: servers and workers are killed while they train, and whatever is killed, the state is that of a replay of the whole log.

Three rounds of 15 planned deaths and more: int8 and fp32, with checkpoints every 8 versions and without, each staleness. Every gap of the
protocol is hit in each. `python -m tests.crash.campaign` makes longer campaigns with random settings and points.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.crash.kills import MALLOC, Kill, Settings
from tests.crash.round import Round

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLAN = [
    Kill("server-0"),
    Kill("server-0", "receipt-send", nth=3),
    Kill("server-0", "submit-take", nth=4),
    Kill("server-0", "step-decide", nth=2, nested=("record-replay=kill@5",)),
    Kill("worker-0"),
    Kill("server-1", nested=("log-opened=kill", f"{MALLOC}5000")),
    Kill("server-1", "receipt-send", nth=5),
    Kill("server-1", "decision-apply", nth=3),
    Kill("server-1", "apply-report", nth=2, also="server-0"),
    Kill("server-0", "segment-sync", "error", nth=4),
    Kill("server-0", "ack-send", nth=3),
    Kill("worker-1"),
]
SETTINGS = [
    (11, Settings("int8", 0, "mlp", checkpoints=True, side_runs=False)),
    (13, Settings("fp32", 1, "counter", checkpoints=True, whole_log=False)),
    (14, Settings("fp32", None, "mlp", checkpoints=False, side_runs=False)),
]
DEATHS = 15  # planned ones with those during recovery and at the same time


@pytest.mark.parametrize("seed,settings", SETTINGS)
def test_nothing_acknowledged_is_lost_and_every_bit_is_replayed(tmp_path: Path, seed: int, settings: Settings) -> None:
    print(f"seed {seed}")
    start = time.monotonic()
    played = Round(tmp_path, random.Random(seed), settings, arm_s=30)
    played.run(PLAN)
    print(f"{dict(played.kinds)} in {time.monotonic() - start:.0f} s; slowest healed in {max(played.heals):.1f} s")
    assert sum(played.kinds.values()) >= DEATHS
    fired = played.coverage().fired
    assert all(fired[kill.point] for kill in PLAN if kill.point), fired
