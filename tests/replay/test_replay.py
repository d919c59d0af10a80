"""The numpy replayer against the project's kernels and record formats, on made-up logs of two shards."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

from tests.replay import replay_log

REPOSITORY = Path(__file__).resolve().parents[2]
MAKE_LOG = Path(os.environ.get("BALLAST_BIN") or REPOSITORY / "bazel-bin" / "tests" / "replay") / "make_log"
SEED = 5


def make_log(directory: Path, optimizer: str, codec: str) -> list[str]:
    assert MAKE_LOG.exists(), f"{MAKE_LOG} is not built: bazel build //tests/replay:make_log"
    done = subprocess.run([MAKE_LOG, directory, optimizer, codec, str(SEED)], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def shard_dir(directory: Path, shard: int) -> Path:
    return directory / "runs" / "made-up" / f"shard-{shard}"


@pytest.mark.parametrize("codec", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_every_version_has_the_same_bits(tmp_path: Path, optimizer: str, codec: str) -> None:
    expected = make_log(tmp_path, optimizer, codec)
    mine = []
    for shard in (0, 1):
        last = replay_log.replay(shard_dir(tmp_path, shard), lambda s: mine.append(f"shard={s.shard} version={s.version} hash={s.root():016x}"))
        assert last.roots_checked == 2
    assert sorted(mine) == sorted(expected)
    assert len(mine) == 2 * 36


def test_damage_of_something_synced_is_an_error(tmp_path: Path) -> None:
    make_log(tmp_path, "sgd", "fp32")
    path = shard_dir(tmp_path, 0) / "00000001.log"
    data = bytearray(path.read_bytes())
    generator = random.Random(SEED)
    for _ in range(20):
        damaged = bytearray(data)
        at = generator.randrange(len(data) // 2)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        try:
            replay_log.replay(path.parent)
        except replay_log.LogError:
            continue
        # Only the zeros that align a record may change unseen.
        assert data[at] == 0, f"byte {at}, seed {SEED}"


def test_torn_tail_is_dropped(tmp_path: Path) -> None:
    make_log(tmp_path, "sgd", "fp32")
    path = shard_dir(tmp_path, 1) / "00000001.log"
    decisions = [r for r in replay_log.records(path.parent) if r.kind == replay_log.DECISION]
    path.write_bytes(path.read_bytes()[: decisions[-1].end - 16])
    assert replay_log.replay(path.parent).index == len(decisions) - 1


def test_missing_contribution_is_an_error(tmp_path: Path) -> None:
    make_log(tmp_path, "sgd", "fp32")
    records = list(replay_log.records(shard_dir(tmp_path, 0)))
    shard = replay_log.Shard()
    shard.on_run(records[0].body)
    decision = next(r for r in records if r.kind == replay_log.DECISION)
    with pytest.raises(replay_log.LogError, match="acknowledged data is gone"):
        shard.on_decision(decision.body)


def test_wrong_hash_root_is_an_error(tmp_path: Path) -> None:
    make_log(tmp_path, "sgd", "fp32")
    shard = replay_log.replay(shard_dir(tmp_path, 0))
    with pytest.raises(replay_log.LogError, match="HASH_ROOT of version 16"):
        shard.on_hash_root(struct.pack("<QQQ", 1, 16, shard.roots[16] ^ 1))
