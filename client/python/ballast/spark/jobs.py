"""Naming the Spark jobs of a training, so that they can be cancelled: PySpark 3.5 and 4.x, classic and Connect."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

_CANCEL_WAIT_S = 3.0


@contextlib.contextmanager
def tagged(spark: Any, tag: str) -> Iterator[None]:
    """Jobs that this thread starts inside carry `tag`. When the block is left by KeyboardInterrupt they are cancelled."""
    add, remove = _tagging(spark)
    add(tag)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        cancel(spark, tag)
        raise
    finally:
        with contextlib.suppress(Exception):
            remove(tag)


def cancel(spark: Any, tag: str) -> None:
    """Asks Spark to cancel the jobs of `tag`; waits some seconds at most, whatever Spark does."""
    thread = threading.Thread(target=_cancel, args=(spark, tag), daemon=True)
    thread.start()
    thread.join(_CANCEL_WAIT_S)


def _tagging(spark: Any) -> tuple[Any, Any]:
    if _is_connect(spark):
        return spark.addTag, spark.removeTag
    # Classic sessions of 4.x have tags too, but one thread cannot interrupt the jobs of another by them.
    return spark.sparkContext.addJobTag, spark.sparkContext.removeJobTag


def _cancel(spark: Any, tag: str) -> None:
    with contextlib.suppress(Exception):
        if _is_connect(spark):
            spark.interruptTag(tag)
        else:
            spark.sparkContext.cancelJobsWithTag(tag)


def _is_connect(spark: Any) -> bool:
    return ".connect." in type(spark).__module__
