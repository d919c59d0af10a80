"""Bit exactness: servers and workers are killed while they train, and whatever is killed, the state is that of a replay of the whole log.

Four campaigns of 12 kills: int8 and fp32, with checkpoints every 25 versions and without. Every gap of the protocol is hit at least 5 times.
`python -m tests.crash.campaign` makes longer ones.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.campaign import GAPS, Campaign, Death

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLAN = [
    ("server-0", "kill -9"),
    ("server-0", "append-receipt"),
    ("server-0", "submit-decision"),
    ("server-0", "decision-apply"),
    ("worker-0", "kill -9"),
    ("server-1", "kill -9"),
    ("server-1", "append-receipt"),
    ("server-1", "decision-apply"),
    ("server-1", "apply-ack"),
    ("server-0", "submit-decision"),
    ("server-0", "apply-ack"),
    ("worker-1", "kill -9"),
]
SEEDS = {("int8", True): 11, ("int8", False): 12, ("fp32", True): 13, ("fp32", False): 14}

_deaths: list[Death] = []


@pytest.mark.parametrize("codec,checkpoints", SEEDS)
def test_nothing_acknowledged_is_lost_and_every_bit_is_replayed(tmp_path: Path, codec: str, checkpoints: bool) -> None:
    seed = SEEDS[codec, checkpoints]
    print(f"seed {seed}")
    start = time.monotonic()
    deaths = Campaign(tmp_path, seed, codec, checkpoints).run(PLAN)
    assert len(deaths) == len(PLAN)
    _deaths.extend(deaths)
    print(f"{len(deaths)} kills in {time.monotonic() - start:.0f} s")


def test_every_gap_was_hit() -> None:
    if len(_deaths) < len(SEEDS) * len(PLAN):
        pytest.skip("counts the kills of the tests above, which did not all run")
    kinds = Counter(d.how for d in _deaths)
    print(f"{len(_deaths)} kills: {dict(kinds)}; slowest healed in {max(d.heal_s for d in _deaths):.1f} s")
    assert len(_deaths) >= 40
    assert all(kinds[gap] >= 5 for gap in GAPS), kinds
