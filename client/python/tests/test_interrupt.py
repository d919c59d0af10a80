"""Ctrl-C in a driver of its own process: it leaves within seconds, says how to resume, and resuming trains every row once."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from peer import Peer

import ballast

DRIVER = """
import os, sys
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
from pyspark.sql import SparkSession
import ballast.spark
spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
df = spark.range(100).selectExpr("id", "array(float(id), float(1)) as x", "int(id % 3) as y")
cluster = ballast.spark.connect(sys.argv[1])
print(cluster.train(df, sys.argv[2], ["x"], "y", id_col="id", batch_rows=8, partitions=2, run_id="r1", patience_s=600))
"""


def drive(peer: Peer, model: str, **more: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(ballast.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", DRIVER, peer.address, model], env=environment, text=True, stdout=-1, stderr=-1, **more)  # type: ignore[call-overload]


@pytest.mark.slow
def test_interrupted_driver_leaves_and_resumes(tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("pyspark")
    model = str(tmp_path / "m.pt")
    ballast.export(torch.nn.Linear(2, 3), model, {"x": ("float32", (2,))}, label=("int64", ()))
    with Peer() as peer:
        peer.workers[0].mute_after = 0
        driver = drive(peer, model)
        try:
            wait_for_rows(peer, driver)
            driver.send_signal(signal.SIGINT)
            started = time.monotonic()
            _, errors = driver.communicate(timeout=60)
        finally:
            driver.kill()
        assert time.monotonic() - started < 20  # our part is bounded by 5 s; the JVM's end and a busy machine come on top
        assert driver.returncode != 0 and 'run_id="r1") resumes' in errors
        peer.workers[0].mute_after = None
        output, errors = drive(peer, model).communicate(timeout=400)
        assert "rows in 100 = rows trained 100" in output, errors


def wait_for_rows(peer: Peer, driver: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 300
    while not peer.workers[0].received:
        assert time.monotonic() < deadline, "the driver sent no rows within 300 s"
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)
