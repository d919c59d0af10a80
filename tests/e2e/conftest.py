"""One real Spark session for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.spark_session import start_spark


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    session = start_spark()
    yield session
    session.stop()
