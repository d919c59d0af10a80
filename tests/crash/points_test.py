"""The table of failpoints says the truth: each name is passed somewhere, and nothing else is."""

from __future__ import annotations

from tests.crash import points


def test_the_table_is_what_the_sources_pass() -> None:
    listed = [point.name for point in points.table()]
    assert len(listed) == len(set(listed))
    assert sorted(listed) == sorted(points.passes())


def test_there_are_at_least_sixty() -> None:
    assert len(points.table()) >= 60


def test_every_phase_has_points() -> None:
    assert {point.phase for point in points.table()} == {"Start", "Step", "Checkpoint", "Run", "Epoch", "Rollback"}
