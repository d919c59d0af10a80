"""Bytes on TCP sockets as the kernel counts them, by `ss`: independent of every counter of ours."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

_ENDS = re.compile(r"^\s*\d+\s+\d+\s+\S*:(\d+)\s+\S*:(\d+)\s*(.*)$")  # with a state filter ss leaves the state out of the line
_COUNTERS = {"sent": re.compile(r"\bbytes_sent:(\d+)"), "received": re.compile(r"\bbytes_received:(\d+)"), "again": re.compile(r"\bbytes_retrans:(\d+)")}


@dataclass(frozen=True)
class SocketBytes:
    sent: int = 0
    received: int = 0

    def __add__(self, other: SocketBytes) -> SocketBytes:
        return SocketBytes(self.sent + other.sent, self.received + other.received)


def bytes_at_port(port: int, pids: set[int]) -> SocketBytes:
    """Sum over the established sockets on the listening `port`, seen from there, whose other end belongs to one of `pids`."""
    sockets = _sockets()
    theirs = {local for local, remote, _, owners in sockets if remote == port and owners & pids}
    total = SocketBytes()
    for local, remote, counters, _ in sockets:
        if local == port and remote in theirs:
            total += SocketBytes(counters["sent"] - counters["again"], counters["received"])
    return total


def pids_connected_to(ports: set[int]) -> set[int]:
    """Processes with an established connection to one of these listening ports."""
    return {pid for _, remote, _, owners in _sockets() if remote in ports for pid in owners}


def _sockets() -> list[tuple[int, int, dict[str, int], set[int]]]:
    """(local port, remote port, counters, owners) of every established socket that belongs to somebody."""
    text = subprocess.run(["ss", "-tinpH", "state", "established"], capture_output=True, text=True, check=True).stdout
    lines = text.splitlines()
    found = []
    for ends, details in zip(lines[::2], lines[1::2]):
        match = _ENDS.match(ends)
        if match is None:
            continue
        counters = {name: int(m[1]) if (m := pattern.search(details)) else 0 for name, pattern in _COUNTERS.items()}
        found.append((int(match[1]), int(match[2]), counters, {int(p) for p in re.findall(r"pid=(\d+)", match[3])}))
    return found
