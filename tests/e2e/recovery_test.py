"""What a server shows while it recovers: it listens, says NOT_SERVING, and /metrics tell how far it is."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from tests.support.cluster import Cluster, Process, patience, wait_for
from tools.bench import recovery_job

pytestmark = pytest.mark.e2e

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse.status


def health(server: Process) -> bytes:
    """Empty while nobody listens yet."""
    with grpc.insecure_channel(server.address) as channel:
        try:
            return bytes(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=patience(2)))
        except grpc.RpcError:
            return b""


def test_startup_state_is_visible(tmp_path: Path) -> None:
    with Cluster(tmp_path, servers=1, workers=0, server_binary="ballast-server-mutable") as cluster:
        recovery_job.prepare(cluster, elements=300_000, steps=12)
        server = cluster.servers[0]
        assert health(server) == SERVING
        server.kill()

        hold = tmp_path / "hold"
        hold.touch()
        server.start(wait=False, environment={"BALLAST_FAILPOINTS": f"record-replay=pause:{hold}@10"})
        wait_for("health NOT_SERVING", lambda: health(server) == NOT_SERVING)
        wait_for("a part of the log to be read", lambda: server.metric("ballast_recovery_read_bytes") > 0)
        expected = server.metric("ballast_recovery_expected_bytes")
        assert 0 < server.metric("ballast_recovery_read_bytes") < expected
        assert not server.is_ready()
        refused = cluster.ctl("run", "show", recovery_job.RUN, check=False)
        assert refused.returncode != 0
        assert re.search(r"recovering its runs \(\d+ of \d+ MiB read\)", refused.stderr), refused.stderr

        hold.unlink()
        server.await_ready()
        assert health(server) == SERVING
        assert server.metric("ballast_recovery_read_bytes") == server.metric("ballast_recovery_expected_bytes") == expected
        assert "version=13" in server.log_since_start()  # the initial weights and 12 steps
