"""The tests of train() and score() again, over Spark Connect, in a process of their own: one process holds one kind of session."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent


@pytest.mark.slow
def test_everything_works_over_connect() -> None:
    pytest.importorskip("pyspark.sql.connect.session")
    files = [str(HERE / "test_spark.py"), str(HERE / "test_scoring.py")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "ignore", *files], env={**os.environ, "BALLAST_TEST_SPARK": "connect"}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-8000:]
