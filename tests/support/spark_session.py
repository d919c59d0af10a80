"""A real Spark for tests: two executor processes with one core each (it takes 10 to 40 s to start)."""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.support.cluster import REPOSITORY


def start_spark() -> Any:
    """The SparkSession of this process; the caller stops it."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .appName("ballast-tests")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.executorEnv.PYTHONPATH", f"{REPOSITORY / 'client' / 'python'}:{REPOSITORY}")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    return session
