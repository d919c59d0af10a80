"""`ballastctl log verify` and `log dump` on a made-up data directory, whole and damaged."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import REPOSITORY, binary, patience

MAKE_LOG = Path(os.environ.get("BALLAST_BIN") or REPOSITORY / "bazel-bin" / "tests" / "replay") / "make_log"


def ctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary("ballastctl"), "log", *map(str, arguments)], capture_output=True, text=True, timeout=patience(60))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    assert MAKE_LOG.exists(), f"{MAKE_LOG} is not built: bazel build //tests/replay:make_log"
    subprocess.run([MAKE_LOG, tmp_path, "adam", "int8", "3"], check=True, capture_output=True)
    return tmp_path


def test_a_whole_log_is_good(directory: Path) -> None:
    done = ctl("verify", directory, "--json")
    shards = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(shards) == 2
    assert all(shard["ok"] and shard["last_version"] == 36 for shard in shards)


def test_damage_is_named_with_file_and_offset(directory: Path) -> None:
    path = next(directory.glob("runs/*/shard-1/00000001.log"))
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    done = ctl("verify", directory)
    assert done.returncode == 1
    assert f"{path} at byte " in done.stderr
    assert "shard-0" in done.stdout  # the other log was looked at all the same


def test_dump_shows_every_decision(directory: Path) -> None:
    records = [json.loads(line) for line in ctl("dump", directory, "--json").stdout.splitlines()]
    decisions = [r["index"] for r in records if r["kind"] == "DECISION" and r["dir"].endswith("shard-0")]
    assert decisions == list(range(1, len(decisions) + 1)) and len(decisions) >= 36
    assert records[0]["kind"] == "RUN"


def test_a_directory_without_a_log_is_not_found(tmp_path: Path) -> None:
    assert ctl("verify", tmp_path).returncode == 3
