"""The application on executors of their own, as a user starts it: one is killed, the driver dies and is started again, Spark Connect."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pytest
from tests.ngram.estimate_test import FALLBACK_FLAGS, random_text

pytest.importorskip("pyspark")
pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Application:
    """`python -m ballast.ngram train` over a text; what it says is watched."""

    def __init__(self, ngram, master: list[str]):
        self.text = random_text(97, sentences=3000, words=300)
        self.folder = ngram.scratch
        (self.folder / "text").write_bytes(self.text)
        settings = {"spark.ui.enabled": "false", "spark.sql.files.maxPartitionBytes": "20000", "spark.sql.shuffle.partitions": "2"}
        # Nothing of this package is on the executors: it travels.
        settings["spark.executorEnv.PYTHONPATH"] = ""
        lines = [f'work = "work"\nreport = "report"\nestimator = "{ngram.binary}"\n[spark]']
        lines += [f'"{key}" = "{value}"' for key, value in settings.items()]
        lines += ['[model.m]\ntext = "text"\norder = 4\nshards = 20\ntau = 0.5\npartitions = 6\ndiscount_fallback = [0.5, 1, 1.5]\narpa = "m.arpa"']
        (self.folder / "lm.toml").write_text("\n".join(lines) + "\n")
        self.command = [sys.executable, "-m", "ballast.ngram", "train", "--config", str(self.folder / "lm.toml"), *master]
        self.env = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT / "client" / "python")}
        self.want = ngram.train(self.text, "--order", 4, *FALLBACK_FLAGS)

    def run(self, on_line=None) -> subprocess.CompletedProcess:
        """`on_line(process, line)` sees what is said while it runs."""
        process = subprocess.Popen(self.command, env=self.env, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        limit = threading.Timer(600, process.kill)
        limit.start()
        said = []
        for line in process.stdout:
            said.append(line)
            if on_line is not None:
                on_line(process, line)
        limit.cancel()
        return subprocess.CompletedProcess(self.command, process.wait(), "".join(said))

    def arpa(self) -> bytes:
        return (self.folder / "m.arpa").read_bytes()


def _children(pid: int) -> list[int]:
    """All processes under one."""
    parents: dict[int, list[int]] = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, at = [], [pid]
    while at:
        at = [child for parent in at for child in parents.get(parent, [])]
        found += at
    return found


def test_a_killed_executor_does_not_show(ngram):
    """One of two, in the stage after the first: what it had shuffled is made again."""
    application = Application(ngram, ["--master", "local-cluster[2,1,1024]"])
    killed = []

    def kill(process, line: str) -> None:
        if line.startswith("m: count:") and not killed:
            for pid in _children(process.pid):
                try:
                    command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                except OSError:
                    continue
                if b"CoarseGrainedExecutorBackend" in command and not killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    done = application.run(kill)
    assert done.returncode == 0, done.stdout
    assert killed and application.arpa() == application.want


def test_a_driver_that_died_goes_on_where_it_was(ngram):
    application = Application(ngram, ["--master", "local[2]"])

    def kill(process, line: str) -> None:
        if line.startswith("m: adjust:"):
            process.kill()

    assert application.run(kill).returncode == -signal.SIGKILL
    assert not (application.folder / "m.arpa").exists()
    done = application.run()
    assert done.returncode == 0, done.stdout
    assert re.findall(r"m: (\w+): was finished before", done.stdout) == ["vocabulary", "count", "plan", "adjust"]
    assert application.arpa() == application.want


def test_spark_connect(ngram):
    pytest.importorskip("grpc_status")
    application = Application(ngram, ["--remote", "local[2]"])
    settings = (application.folder / "lm.toml").read_text()
    (application.folder / "lm.toml").write_text(settings.replace('"spark.ui.enabled" = "false"\n', ""))
    done = application.run()
    assert done.returncode == 0, done.stdout
    assert application.arpa() == application.want
    report = json.loads((application.folder / "report" / "report.json").read_text())
    assert all(stage["jvm_cpu_s"] is None for stage in report["stages"])


def test_spark_submit(ngram):
    application = Application(ngram, ["--master", "local[2]"])
    submit = pathlib.Path(sys.executable).parent / "spark-submit"
    main = ROOT / "client" / "python" / "ballast" / "ngram" / "__main__.py"
    application.command = [str(submit), "--master", "local[2]", str(main), "train", "--config", str(application.folder / "lm.toml")]
    done = application.run()
    assert done.returncode == 0, done.stdout
    assert application.arpa() == application.want
