"""The Spark session of these tests. BALLAST_TEST_SPARK=connect runs the same tests over Spark Connect (in a process of their own)."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # peer.py
# PySpark forks to start its JVM. In a process with Python gRPC servers (the peers of these tests) gRPC's own fork handlers may abort the child.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """Two cores of this machine; or the session that other tests of this process have started."""
    pytest.importorskip("pyspark")
    from pyspark.sql import SparkSession

    existing = SparkSession.getActiveSession()
    if existing is not None:
        yield existing
        return
    session = _start(SparkSession.builder)
    yield session
    session.stop()


def _start(builder: Any) -> Any:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    connect = os.environ.get("BALLAST_TEST_SPARK") == "connect"
    session = (
        (builder.remote("local[2]") if connect else builder.master("local[2]"))
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "3")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "50")
        .config("spark.driver.memory", "1g")
        .getOrCreate()
    )
    if not connect:
        session.sparkContext.setLogLevel("OFF")
    return session
