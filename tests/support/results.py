"""Results files of campaigns: JSON lines, one for each part of a campaign, never rewritten. A later call goes on behind the last seed.

Every line has: seed (the first of the part), seeds (how many; a part of a crash campaign has one), seconds, at, revision (of the sources), result
("ok" or what went wrong), and the figures of its campaign.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

from tests.support.cluster import REPOSITORY


def revision() -> str:
    """The commit that the sources are of, with "+" when they were changed since; "unknown" outside of a clone."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=REPOSITORY, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


class Results:
    """The lines of `file`; without a file only those of this call."""

    def __init__(self, file: Optional[Path]) -> None:
        self._file = file
        self._revision = revision()
        self.lines: list[dict[str, Any]] = []
        if file is not None and file.exists():
            self.lines = [json.loads(line) for line in file.read_text().splitlines()]

    def next_seed(self, first: int) -> int:
        """`first`, or the seed behind the last one that is in the file."""
        return max([first, *(int(line["seed"]) + int(line.get("seeds", 1)) for line in self.lines)])

    def add(self, seed: int, seeds: int, seconds: float, result: str, figures: dict[str, Any]) -> dict[str, Any]:
        line = dict(seed=seed, seeds=seeds, seconds=round(seconds, 1), at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    revision=self._revision, result=result, **figures)  # fmt: skip
        self.lines.append(line)
        if self._file is not None:
            with self._file.open("a") as out:
                out.write(json.dumps(line) + "\n")
        return line
