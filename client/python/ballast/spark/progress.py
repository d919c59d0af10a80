"""A line on the driver that shows how training goes: rows/s, loss, time left.

A thread of its own asks server 0 once a second. On a terminal one line is rewritten; elsewhere a plain line is written every ten
seconds. Failures to ask are not errors: the training itself notices what matters.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Optional, TextIO

from ballast.errors import BallastError
from ballast.runs import get_run

_ASK_EVERY_S = 1.0
_PLAIN_EVERY_S = 10.0
_RATE_OVER_S = 15.0


class Progress:
    """Use as a context manager. rows_total: of all epochs, 0 when unknown."""

    def __init__(self, connection: Any, run: str, rows_total: int, epochs: int, out: Optional[TextIO] = None) -> None:
        self._connection = connection
        self._run = run
        self._rows_total = rows_total
        self._epochs = epochs
        self._out = out or sys.stderr
        self._live = bool(getattr(self._out, "isatty", lambda: False)())
        self._stop = threading.Event()
        self._seen: "deque[tuple[float, int]]" = deque()
        self._thread = threading.Thread(target=self._watch, name=f"progress of {run}", daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self._stop.set()
        self._thread.join(2.0)
        if self._live:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def _watch(self) -> None:
        written = time.monotonic()
        while not self._stop.wait(_ASK_EVERY_S):
            try:
                run = get_run(self._connection, self._run, timeout_s=5.0, full=False)
            except BallastError as e:
                text = f"{self._run}: server 0 at {self._connection.address} does not answer ({e.reason}); waiting"
            else:
                text = self.line(run, time.monotonic())
            if self._live:
                self._out.write(f"\r\x1b[K{text}")
                self._out.flush()
            elif time.monotonic() - written >= _PLAIN_EVERY_S:
                self._out.write(text + "\n")
                self._out.flush()
                written = time.monotonic()

    def line(self, run: Any, now: float) -> str:
        """What is shown for a Run seen at `now` (seconds)."""
        done = run.rows_trained + run.rows_skipped
        self._seen.append((now, done))
        while now - self._seen[0][0] > _RATE_OVER_S:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (done - before) / (now - since) if now > since else 0.0
        epoch = min(self._epochs, 1 + sum(1 for e in run.epochs if e.committed))
        total = f"/{self._rows_total:,}" if self._rows_total else ""
        parts = [f"{self._run}: epoch {epoch}/{self._epochs}", f"{done:,}{total} rows", f"{rate:,.0f} rows/s"]
        if not math.isnan(run.loss) and run.steps:
            parts.append(f"loss {run.loss:.4f}")
        if rate > 0 and self._rows_total > done:
            parts.append(f"{_duration((self._rows_total - done) / rate)} left")
        if rate == 0 and run.reason:
            parts.append(run.reason)
        return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
