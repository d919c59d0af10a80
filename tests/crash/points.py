"""The failpoints of the server: the table of server/failpoint_list.h, where the sources pass them, and what a campaign's coverage files count."""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster import REPOSITORY

TABLE = REPOSITORY / "server" / "failpoint_list.h"
_LINE = re.compile(r'^\s*\{"([a-z0-9-]+)", Phase::k(\w+), "', re.M)
_PASS = re.compile(r'\bBALLAST_FAILPOINT(_STATUS)?\("([^"]+)"\)')
_COVERAGE = struct.Struct("<48sQQ")  # CoverageLine of server/failpoint.h


@dataclass(frozen=True)
class Point:
    name: str
    phase: str  # Start, Step, Checkpoint, Run, Epoch or Rollback
    can_fail: bool  # an error can be returned wherever it is passed
    servers: tuple[str, ...]  # that come by


# What only the coordinator does, or only a server that follows one.
_SERVER_0 = re.compile(
    r"^(runs?-(load|store|creat|delet)|ledger-|host-|session-|claim-|submit-|step-|ack-|manifest-(put|stored|drop)|epoch-|rollback-(begin|decide|done)|decision-durable)"
)
_SERVER_1 = re.compile(r"^follow-")


def passes() -> dict[str, list[bool]]:
    """For each name that the sources pass: whether each place can return an error."""
    found: dict[str, list[bool]] = {}
    for path in sorted((REPOSITORY / "server").rglob("*.cc")):
        if path.name.startswith("failpoint"):
            continue
        for status, name in _PASS.findall(path.read_text()):
            found.setdefault(name, []).append(bool(status))
    return found


def table() -> list[Point]:
    places = passes()
    points = []
    for name, phase in _LINE.findall(TABLE.read_text()):
        servers = ("server-0",) if _SERVER_0.match(name) else ("server-1",) if _SERVER_1.match(name) else ("server-0", "server-1")
        points.append(Point(name, phase, all(places.get(name, [False])), servers))
    return points


@dataclass
class Coverage:
    """How often each point was passed, and how often it fired."""

    passed: Counter[str]
    fired: Counter[str]

    @staticmethod
    def read(files: list[Path]) -> Coverage:
        total = Coverage(Counter(), Counter())
        for file in files:
            for name, passed, fired in _COVERAGE.iter_unpack(file.read_bytes()):
                text = name.rstrip(b"\0").decode()
                total.passed[text] += passed
                total.fired[text] += fired
        return total

    def add(self, other: Coverage) -> None:
        self.passed.update(other.passed)
        self.fired.update(other.fired)
