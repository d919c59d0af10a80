"""`ballastctl ckpt verify`, `diff` and `rm` on the data directories of stopped servers, whole and damaged."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import audit
from tests.support.cluster import Cluster, Process, binary, patience
from tests.support.feeder import FeederJob, export_counter, options
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

RUN, SLOTS, ROWS, PARTITIONS = "stored", 5000, 400, 2


def ctl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary("ballastctl"), "ckpt", *map(str, arguments)], capture_output=True, text=True, timeout=patience(60))


class Stored:
    """Three epochs of a run, each with a checkpoint, of which two are kept; the servers are stopped."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        model = export_counter(directory / "counter.pt", SLOTS)
        self.job = FeederJob(cluster.address, RUN, model, CounterRows(ROWS, SLOTS, PARTITIONS), run_options=options(partitions=PARTITIONS))
        self.job.create()
        self.versions = [int(self.job.run_epoch(epoch).manifest_version) for epoch in (1, 2, 3)]
        for process in cluster.processes():
            process.kill()
        self.dirs = [cluster.directory / server.name for server in cluster.servers]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    directory = tmp_path_factory.mktemp("stored")
    with Cluster(directory / "cluster", servers=2, workers=1) as cluster:
        yield Stored(cluster, directory)


@pytest.fixture
def dirs(stored: Stored, tmp_path: Path) -> list[Path]:
    """Copies that a test may damage."""
    return [Path(shutil.copytree(source, tmp_path / source.name)) for source in stored.dirs]


def dir_flags(dirs: list[Path]) -> list[object]:
    return [flag for directory in dirs for flag in ("--dir", directory)]


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def sst(directory: Path, text: bytes) -> Path:
    """The file of RocksDB that says `text` most often."""
    return max((directory / "store" / "db").glob("*.sst"), key=lambda p: p.read_bytes().count(text))


def test_whole_checkpoints_are_good_and_looking_changes_nothing(stored: Stored, dirs: list[Path]) -> None:
    before = [files_of(directory) for directory in dirs]
    done = ctl("--json", "verify", *dir_flags(dirs))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert {(Path(line["dir"]).name, line["version"]) for line in lines} >= {(d.name, v) for d in dirs for v in stored.versions[1:]}
    assert all(line["ok"] and line["run"] == RUN for line in lines)
    assert [files_of(directory) for directory in dirs] == before
    one = ctl("verify", f"{RUN}@{stored.versions[2]}", "--dir", dirs[0])
    assert one.returncode == 0 and one.stdout.count("ok:") == 1


@pytest.mark.parametrize("index", [0, 1])
def test_a_damaged_block_is_named_with_file_and_offset(stored: Stored, dirs: list[Path], index: int) -> None:
    path = sst(dirs[index], f"ckpt/{RUN}/{stored.versions[-1]:020d}/".encode())  # files of dropped checkpoints may still be there
    flip(path, path.stat().st_size // 2)
    done = ctl("verify", *dir_flags(dirs))
    assert done.returncode == 1
    assert str(path) in done.stderr and "offset" in done.stderr, done.stderr
    assert f"ok: {dirs[1 - index]}" in done.stdout  # the other server was looked at all the same


def test_damage_in_a_stored_model_is_named(dirs: list[Path]) -> None:
    path = sst(dirs[0], b"artifact/")
    assert path.stat().st_size > 4096
    flip(path, path.stat().st_size // 2)
    done = ctl("verify", "--dir", dirs[0])
    assert done.returncode == 1 and str(path) in done.stderr and "offset" in done.stderr, done.stderr


def test_a_lost_checkpoint_of_another_server_is_named(stored: Stored, dirs: list[Path]) -> None:
    """Server 1 was restored from an older copy: its part of the newest manifest is missing."""
    shutil.rmtree(dirs[1])
    with Cluster(dirs[1].parent / "other", servers=2, workers=1) as other:
        job = FeederJob(other.address, RUN, stored.job.model, CounterRows(ROWS, SLOTS, PARTITIONS), run_options=stored.job.options)
        job.create()
        job.run_epoch(1)
    shutil.copytree(other.directory / "server-1", dirs[1])
    done = ctl("verify", *dir_flags(dirs))
    assert done.returncode == 1
    assert f"{RUN}@{stored.versions[2]}" in done.stderr and str(dirs[1]) in done.stderr and "missing" in done.stderr, done.stderr


def test_damage_above_the_checkpoints_is_named_by_file(dirs: list[Path]) -> None:
    path = next((dirs[0] / "store" / "db").glob("MANIFEST-*"))
    flip(path, path.stat().st_size // 2)
    done = ctl("verify", "--dir", dirs[0])
    assert done.returncode == 1 and path.name.split("-")[0] in done.stderr, done.stderr


def test_diff_of_two_checkpoints(stored: Stored, dirs: list[Path]) -> None:
    """An epoch adds 1 to each slot that has a row: the distance is known."""
    older, newer = stored.versions[1:]
    [weight] = json.loads(ctl("--json", "diff", f"{RUN}@{older}", f"{RUN}@{newer}", *dir_flags(dirs)).stdout)
    touched = np.count_nonzero(stored.job.rows.expected(1))  # type: ignore[attr-defined]
    assert weight == {"tensor": "weight", "elements": SLOTS, "differ": touched, "largest": 1.0, "norm": pytest.approx(touched**0.5)}
    [same] = json.loads(ctl("--json", "diff", f"{RUN}@{newer}", f"{RUN}@{newer}", *dir_flags(dirs)).stdout)
    assert same["differ"] == 0 and same["norm"] == 0
    assert ctl("diff", f"{RUN}@{older}", f"{RUN}@1000000", *dir_flags(dirs)).returncode == 3


def test_the_newest_healthy_checkpoint_is_never_removed(stored: Stored, dirs: list[Path]) -> None:
    done = ctl("rm", f"{RUN}@{stored.versions[2]}", "--dir", dirs[0])
    assert done.returncode == 5 and "newest checkpoint whose values are all finite" in done.stderr, done.stderr
    assert ctl("verify", f"{RUN}@{stored.versions[2]}", "--dir", dirs[0]).returncode == 0


def test_removed_checkpoint_is_gone_and_the_run_goes_on(stored: Stored, tmp_path: Path) -> None:
    """The last test of the module: it starts the servers again."""
    older, newer = stored.versions[1:]
    assert ctl("rm", f"{RUN}@{older}", "--dir", stored.dirs[1]).returncode == 5  # manifests are on server 0
    done = ctl("rm", f"{RUN}@{older}", "--dir", stored.dirs[0])
    assert done.returncode == 0, done.stderr
    assert ctl("verify", f"{RUN}@{older}", "--dir", stored.dirs[0]).returncode == 3
    assert ctl("verify", f"{RUN}@{newer}", "--dir", stored.dirs[0]).returncode == 0
    for process in stored.cluster.processes():
        process.start(wait=False)
    for process in stored.cluster.processes():
        process.await_ready()
    assert [m["version"] for m in stored.cluster.ctl_json("ckpt", "ls", RUN)] == [newer]  # type: ignore[attr-defined]
    assert stored.job.run_epoch(4).committed
    np.testing.assert_array_equal(audit.live_weights(stored.cluster, RUN)["weight"], stored.job.rows.expected(4))  # type: ignore[attr-defined]


def test_a_running_server_is_left_alone(stored: Stored) -> None:
    server: Process = stored.cluster.servers[0]
    if not server.alive():
        server.start()
    for command in (["verify"], ["rm", f"{RUN}@1"]):
        done = ctl(*command, "--dir", stored.dirs[0])
        assert done.returncode == 5 and "stop it first" in done.stderr, done.stderr


def test_a_directory_of_nobody_is_not_found(tmp_path: Path) -> None:
    assert ctl("verify", "--dir", tmp_path).returncode == 3
