"""Seven rules of the protocol, each with the interleaving that breaks without it, played by hand against real servers.

Every scenario passes with all rules on, and fails when the server runs with that one rule taken away (BALLAST_MUTATE, test builds only):
so the tests would notice if the rule were lost. Danger numbers: docs/ARCHITECTURE.md, "The step protocol".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ballast.channel import Connection
from ballast.errors import BallastError
from ballast.runs import pull
from ballast.v1 import control_pb2
from tests.support import audit
from tests.support.cluster import Cluster
from tests.support.feeder import FeederJob, export_counter, in_background, options
from tests.support.raw_session import RawSession, Silence, batch
from tests.support.rows import CounterRows

pytestmark = pytest.mark.e2e

SLOTS = 64
ROWS = 16  # of a batch
RUN = "mutation"
SERVERS = 2


@dataclass
class Scene:
    cluster: Cluster

    @property
    def addresses(self) -> dict[int, str]:
        return {i: s.address for i, s in enumerate(self.cluster.servers)}

    def begin(self, step_rows: int) -> None:
        """A run at version 1, its epoch begun. linger is long: only rules close steps here."""
        model = export_counter(self.cluster.directory / "counter.pt", SLOTS)
        rows = CounterRows(ROWS, SLOTS, partitions=1)
        job = FeederJob(self.cluster.address, RUN, model, rows, run_options=options(partitions=1, batch_rows=ROWS, step_rows=step_rows, linger_ms=60_000))
        job.create()
        job.begin(1)
        first = self.session("initial")
        first.initialise(np.zeros(SLOTS, dtype=np.float32), self.addresses)
        first.drop()

    def hold_log(self, server: int) -> None:
        """From now on the server writes nothing to its log, until it is killed."""
        self.stall_file(server).touch()

    def kill_and_restart(self, server: int) -> None:
        self.cluster.servers[server].kill()
        self.stall_file(server).unlink()
        self.cluster.servers[server].start()

    def stall_file(self, server: int) -> Path:
        return self.cluster.directory / f"stall-server-{server}"

    def session(self, worker: str, resume: int = 0) -> RawSession:
        return RawSession(self.cluster.address, RUN, worker, resume)

    def weights(self) -> Any:
        """Of all servers; TimeoutError when one of them cannot get to the newest version."""

        def read() -> Any:
            with Connection(self.cluster.address) as connection:
                return pull(connection, f"{RUN}@live")[1]["weight"]

        return in_background(read)(20)


def gradient(seq: int) -> Any:
    """The contribution of batch `seq`: it adds 1 to slots seq and SLOTS - 1 - seq (one on each server)."""
    values = np.zeros(SLOTS, dtype=np.float32)
    values[[seq, SLOTS - 1 - seq]] = -1
    return values


def assert_trained(scene: Scene, seqs: list[int]) -> None:
    audit.assert_each_batch_once(scene.cluster, RUN)
    np.testing.assert_array_equal(scene.weights(), -sum(gradient(s) for s in seqs))


def no_fence_check(scene: Scene) -> None:
    """F6: somebody submits a batch that is granted to somebody else."""
    scene.begin(step_rows=ROWS)
    holder, zombie = scene.session("holder"), scene.session("zombie")
    b0 = batch(0, ROWS)
    grant = holder.granted(b0)
    zombie.contribute([b0], gradient(0), grant.base_version, scene.addresses)
    refused = zombie.hears("refuse", seconds=2)
    holder.accepted(holder.contribute([b0], gradient(0), grant.base_version, scene.addresses))
    assert_trained(scene, [0])
    assert refused


def no_withdraw(scene: Scene) -> None:
    """F6: a session submits and dies before the step is decided; its batch is trained by another one."""
    scene.begin(step_rows=3 * ROWS)
    stays, dies = scene.session("stays"), scene.session("dies")
    b0, b1 = batch(0, ROWS), batch(1, ROWS)
    grant = stays.granted(b1)
    dies.granted(b0)
    dies.contribute([b0], gradient(0), grant.base_version, scene.addresses)
    second = batch(2, ROWS)
    dies.granted(second)  # the submit was taken: messages of a session are handled in order
    dies.drop()
    heir = scene.session("heir")
    heir.granted(b0)
    uids = [(stays, stays.contribute([b1], gradient(1), grant.base_version, scene.addresses))]
    uids.append((heir, heir.contribute([b0], gradient(0), grant.base_version, scene.addresses)))
    stays.blocked()
    heir.blocked()
    for session, uid in uids:
        session.accepted(uid)
    assert_trained(scene, [0, 1])


def no_own_log_check(scene: Scene) -> None:
    """R5: the receipt of server 0 means "appended". A crash that loses the bytes makes a lie of it."""
    scene.begin(step_rows=ROWS)
    session = scene.session("w")
    b0 = batch(0, ROWS)
    grant = session.granted(b0)
    uid = session.new_uid()
    scene.hold_log(0)
    session.push(uid, gradient(0), scene.addresses)
    receipts = [session.receipt(0), session.receipt(1)]
    scene.kill_and_restart(0)
    session.drop()
    session = scene.session("w", resume=session.id)
    assert session.welcome.resumed
    session.claim(b0, uid)
    assert session.expect("grant").uid == uid
    session.submit(uid, [b0], grant.base_version, receipts)
    assert list(session.expect("refuse").shards) == [0]
    session.push(uid, gradient(0), {0: scene.addresses[0]})
    session.submit(uid, [b0], grant.base_version, [session.receipt(0), receipts[1]])
    session.accepted(uid)
    assert_trained(scene, [0])


def early_receipt(scene: Scene) -> None:
    """R1: server 1 is killed before it wrote a contribution. Nobody may hold a receipt for it."""
    scene.begin(step_rows=ROWS)
    session = scene.session("w")
    b0 = batch(0, ROWS)
    grant = session.granted(b0)
    uid = session.new_uid()
    scene.hold_log(1)
    session.push(uid, gradient(0), scene.addresses)
    receipts = [session.receipt(0)]
    try:
        receipts.append(session.receipt(1, seconds=2))
        session.submit(uid, [b0], grant.base_version, receipts)
        session.expect("decided", seconds=2)
    except Silence:
        pass
    scene.kill_and_restart(1)
    if len(receipts) == 1:
        session.forget_stream(1)
        session.push(uid, gradient(0), {1: scene.addresses[1]})
        receipts.append(session.receipt(1))
        session.submit(uid, [b0], grant.base_version, receipts)
        session.accepted(uid)
    assert_trained(scene, [0])


def old_receipts(scene: Scene) -> None:
    """R4: a receipt for bytes that server 1 was never sent. A decision on it would stop that server."""
    scene.begin(step_rows=ROWS)
    session = scene.session("w")
    b0 = batch(0, ROWS)
    grant = session.granted(b0)
    uid = session.new_uid()
    session.push(uid, gradient(0), {0: scene.addresses[0]})
    true = session.receipt(0)
    false = control_pb2.Receipt()
    false.CopyFrom(true)
    false.shard = 1
    session.submit(uid, [b0], grant.base_version, [true, false])
    assert list(session.expect("refuse").shards) == [1]
    session.push(uid, gradient(0), {1: scene.addresses[1]})
    session.submit(uid, [b0], grant.base_version, [true, session.receipt(1)])
    session.accepted(uid)
    assert_trained(scene, [0])


def holds_anything(scene: Scene) -> None:
    """F2: a twin waits for a batch that another session trains. It must not hold up the step."""
    scene.begin(step_rows=ROWS)
    trains, twin = scene.session("trains"), scene.session("twin")
    b0 = batch(0, ROWS)
    grant = trains.granted(b0)
    twin.claim(b0)
    assert not twin.hears("grant", seconds=0.5)
    trains.accepted(trains.contribute([b0], gradient(0), grant.base_version, scene.addresses), seconds=5)
    assert twin.expect("done").batch == b0
    assert_trained(scene, [0])


def never_flush(scene: Scene) -> None:
    """F1: the last batch of a partition fills half a step, and nothing more will come."""
    scene.begin(step_rows=2 * ROWS)
    session = scene.session("w")
    b0 = batch(0, ROWS)
    grant = session.granted(b0)
    session.blocked()
    assert session.expect("flush", seconds=5).step == grant.step
    session.accepted(session.contribute([b0], gradient(0), grant.base_version, scene.addresses))
    assert_trained(scene, [0])


SCENARIOS: dict[str, Callable[[Scene], None]] = {
    "no-fence-check": no_fence_check,
    "no-withdraw": no_withdraw,
    "no-own-log-check": no_own_log_check,
    "early-receipt": early_receipt,
    "old-receipts": old_receipts,
    "holds-anything": holds_anything,
    "never-flush": never_flush,
}


def play(name: str, directory: Path, mutate: str) -> None:
    environment = {"BALLAST_FAILPOINTS": f"log-write=pause:{directory}/stall-{{name}}"}
    if mutate:
        environment["BALLAST_MUTATE"] = mutate
    flags = ("--log-retain", "all")
    with Cluster(directory, servers=SERVERS, workers=0, server_flags=flags, server_binary="ballast-server-mutable", environment=environment) as cluster:
        SCENARIOS[name](Scene(cluster))


@pytest.mark.parametrize("name", SCENARIOS)
def test_holds_with_all_rules(name: str, tmp_path: Path) -> None:
    play(name, tmp_path, mutate="")


@pytest.mark.parametrize("name", SCENARIOS)
def test_is_noticed_without_the_rule(name: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, BallastError, grpc.RpcError, RuntimeError, TimeoutError)) as noticed:
        play(name, tmp_path, mutate=name)
    print(f"{name}: noticed by {noticed.value!r}")
