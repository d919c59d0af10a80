"""A small Ballast cluster inside the test's process: server 0 and workers that speak the real protocol over real gRPC.

It trains nothing. It keeps the ledger of batches as the coordinator does, so that tests can ask what was trained and how often; and its
workers can be told to misbehave. It is a peer of the client, not a part of it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from ballast.v1 import control_pb2, control_pb2_grpc, run_pb2, worker_pb2, worker_pb2_grpc
from ballast.version import PROTOCOL, RELEASE


def abort(context: Any, code: grpc.StatusCode, reason: str, message: str, **metadata: str) -> None:
    """Ends the call as the servers do: status, and ErrorInfo in its details."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="ballast", metadata=metadata))
    status = status_pb2.Status(code=code.value[0], message=message, details=[info])
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


@dataclass
class Ledger:
    lock: threading.RLock = field(default_factory=threading.RLock)
    trained: dict[tuple[int, int, int], worker_pb2.FeedUp.Rows] = field(default_factory=dict)
    by_partition: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)  # (epoch, partition) -> seq -> rows
    duplicates: int = 0
    committed: dict[int, Any] = field(default_factory=dict)
    skip: Callable[[Any], bool] = lambda rows: False
    skipped_rows: dict[int, int] = field(default_factory=dict)

    def claim(self, epoch: int, partition: int, rows: Any) -> tuple[str, int]:
        """("trained" | "duplicate" | "skipped" | "conflict", fingerprint on record)"""
        key = (epoch, partition, rows.seq)
        with self.lock:
            if key in self.trained:
                self.duplicates += 1
                known = self.trained[key].fingerprint
                return ("duplicate" if known == rows.fingerprint else "conflict"), known
            self.trained[key] = rows
            self.by_partition.setdefault((epoch, partition), {})[rows.seq] = rows.rows
            if self.skip(rows):
                self.skipped_rows[epoch] = self.skipped_rows.get(epoch, 0) + rows.rows
                return "skipped", rows.fingerprint
            return "trained", rows.fingerprint


class Worker(worker_pb2_grpc.WorkerServicer):
    """Acknowledges only when it must: on flush and end. So a client that waits without flush hangs, as with the real one (danger F1)."""

    def __init__(self, ledger: Ledger, credit_bytes: int = 1 << 20) -> None:
        self.ledger = ledger
        self.credit_bytes = credit_bytes
        self.break_after: Optional[int] = None  # batches until the stream dies, once
        self.mute_after: Optional[int] = None  # batches until nothing is said any more
        self.fault: Optional[worker_pb2.FeedDown.Fault] = None
        self.lose_acks = False  # what was trained is not told when the stream breaks
        self.received: list[int] = []
        self.flushes = 0
        self.overdrawn = 0
        self.opens: list[Any] = []
        self.peak_unacknowledged_rows = 0

    def Feed(self, request_iterator: Iterator[Any], context: Any) -> Iterator[Any]:
        opening = next(request_iterator).open
        self.opens.append(opening)
        credit = self.credit_bytes
        yield worker_pb2.FeedDown(welcome=worker_pb2.FeedDown.Welcome(hello=control_pb2.Hello(protocol=PROTOCOL, release=RELEASE), credit_bytes=credit))
        queued: list[Any] = []
        held: list[Any] = []  # left the queue, not trained yet
        for up in request_iterator:
            kind = up.WhichOneof("kind")
            if kind == "rows":
                size = sum(len(c.data) for c in up.rows.columns)
                self.overdrawn += credit <= 0
                credit -= size
                self.received.append(up.rows.seq)
                queued.append((up.rows, size))
                self.peak_unacknowledged_rows = max(self.peak_unacknowledged_rows, sum(r.rows for r, _ in queued) + sum(r.rows for r in held))
                if self.fault is not None:
                    yield worker_pb2.FeedDown(fault=self.fault)
                    return
                if self.break_after is not None and len(self.received) >= self.break_after:
                    self.break_after = None
                    if self.lose_acks:
                        for rows, _ in queued:
                            self.ledger.claim(opening.epoch, opening.partition, rows)
                    context.abort(grpc.StatusCode.UNAVAILABLE, "worker killed by the test")
            elif kind in ("flush", "end"):
                self.flushes += kind == "flush"
                if self.mute_after is not None and len(self.received) >= self.mute_after:
                    continue
                for rows, size in queued:
                    credit += size
                    yield worker_pb2.FeedDown(credit=worker_pb2.FeedDown.Credit(bytes=size))
                    held.append(rows)
                queued = []
                for rows in held:
                    yield self._acknowledge(opening, rows)
                held = []
                if kind == "end":
                    return

    def _acknowledge(self, opening: Any, rows: Any) -> Any:
        outcome, known = self.ledger.claim(opening.epoch, opening.partition, rows)
        if outcome == "conflict":
            text = f"partition {opening.partition}, seq {rows.seq} was trained with other rows"
            return worker_pb2.FeedDown(fault=worker_pb2.FeedDown.Fault(reason="FINGERPRINT_DIFFERS", message=text, metadata={"seq": str(rows.seq)}))
        ack = worker_pb2.FeedDown.Ack
        outcomes = {"trained": ack.TRAINED, "duplicate": ack.DUPLICATE, "skipped": ack.SKIPPED}
        return worker_pb2.FeedDown(ack=ack(seq=rows.seq, outcome=outcomes[outcome], version=1, durable=True))


class Control(control_pb2_grpc.ControlServicer):
    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.workers: list[str] = []
        self.artifacts: dict[str, bytes] = {}
        self.uploads = 0
        self.runs: dict[str, Any] = {}
        self.window_bytes = 1 << 20
        self.forget_at_commit: Optional[tuple[int, int, int]] = None  # a batch that is lost once, just before the commit
        self.committed_from_open: Optional[int] = None  # this OpenFeed and later ones find the epoch committed
        self.opened: list[Any] = []
        self.begun: list[Any] = []
        self.release = RELEASE

    def Cluster(self, request: Any, context: Any) -> Any:
        workers = [control_pb2.WorkerInfo(name=a, address=a) for a in self.workers]
        return control_pb2.ClusterState(release=self.release, servers_expected=1, servers=[control_pb2.ServerInfo(index=0, connected=True)], workers=workers)

    def PutArtifact(self, request_iterator: Iterator[Any], context: Any) -> Any:
        content = b"".join(p.data for p in request_iterator)
        digest = hashlib.sha256(content).hexdigest()
        self.artifacts[digest] = content
        self.uploads += 1
        return control_pb2.Artifact(sha256=digest, bytes=len(content))

    def GetArtifact(self, request: Any, context: Any) -> Iterator[Any]:
        if request.sha256 not in self.artifacts:
            abort(context, grpc.StatusCode.NOT_FOUND, "ARTIFACT_UNKNOWN", "no such artifact")
        yield control_pb2.Piece(sha256=request.sha256, data=self.artifacts[request.sha256])

    def CreateRun(self, request: Any, context: Any) -> Any:
        known = self.runs.get(request.name)
        if known is not None and known != request:
            abort(context, grpc.StatusCode.FAILED_PRECONDITION, "RUN_SPEC_DIFFERS", f"run {request.name} exists with another spec", fields="model_sha256")
        self.runs[request.name] = request
        run = self._run(request.name)
        run.created = known is None
        return run

    def ListRuns(self, request: Any, context: Any) -> Any:
        names = [n for n in self.runs if not request.name or n == request.name]
        return control_pb2.RunList(runs=[self._run(n) for n in names])

    def _run(self, name: str) -> Any:
        rows = sum(sum(p.values()) for p in self.ledger.by_partition.values())
        skipped = sum(self.ledger.skipped_rows.values())
        return run_pb2.Run(
            spec=self.runs[name],
            state=run_pb2.RUN_ACTIVE,
            version=3,
            steps=2,
            loss=0.5,
            rows_trained=rows - skipped,
            rows_skipped=skipped,
            duplicates=self.ledger.duplicates,
            manifest_version=3,
            epochs=list(self.ledger.committed.values()),
        )

    def BeginEpoch(self, request: Any, context: Any) -> Any:
        self.begun.append(request)
        return self.ledger.committed.get(request.epoch) or run_pb2.EpochReport(epoch=request.epoch)

    def OpenFeed(self, request: Any, context: Any) -> Any:
        self.opened.append(request)
        choice = [w for w in self.workers if w not in request.avoid]
        if not choice:
            abort(context, grpc.StatusCode.UNAVAILABLE, "NO_WORKER", "no worker is attached")
        with self.ledger.lock:
            done = sorted(self.ledger.by_partition.get((request.epoch, request.partition), {}))
        below = next((i for i, seq in enumerate(done) if seq != i), len(done))
        return control_pb2.FeedPlace(
            worker=choice[0],
            address=choice[request.partition % len(choice)],
            committed=request.epoch in self.ledger.committed or len(self.opened) >= (self.committed_from_open or 1 << 30),
            trained_below=below,
            trained=[control_pb2.SeqRange(first=s, count=1) for s in done[below:]],
            window_bytes=self.window_bytes,
            window_rows=8,
        )

    def CommitEpoch(self, request: Any, context: Any) -> Any:
        with self.ledger.lock:
            lost, self.forget_at_commit = self.forget_at_commit, None
            if lost is not None:
                del self.ledger.trained[lost]
                del self.ledger.by_partition[lost[:2]][lost[2]]
            report = run_pb2.EpochReport(epoch=request.epoch, rows_in=sum(p.rows for p in request.partitions))
            for p in request.partitions:
                have = self.ledger.by_partition.get((request.epoch, p.partition), {})
                missing = [s for s in range(p.batches) if s not in have]
                if missing:
                    report.missing.add(partition=p.partition, seqs=missing)
                report.batches += len(have)
                report.rows_trained += sum(have.values())
            if not report.missing:
                report.rows_skipped = self.ledger.skipped_rows.get(request.epoch, 0)
                report.rows_trained -= report.rows_skipped
                report.committed, report.manifest_version = True, 3
                self.ledger.committed[request.epoch] = report
            return report


class Peer:
    """Server 0 and `workers` workers on free ports of the loopback."""

    def __init__(self, workers: int = 1, credit_bytes: int = 1 << 20) -> None:
        self.ledger = Ledger()
        self.control = Control(self.ledger)
        self.workers = [Worker(self.ledger, credit_bytes) for _ in range(workers)]
        self._servers: list[Any] = []
        for worker in self.workers:
            self.control.workers.append(self._serve(lambda s, w=worker: worker_pb2_grpc.add_WorkerServicer_to_server(w, s)))
        self.address = self._serve(lambda s: control_pb2_grpc.add_ControlServicer_to_server(self.control, s))

    def _serve(self, add: Callable[[Any], None]) -> str:
        server = grpc.server(ThreadPoolExecutor(max_workers=32))
        add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self._servers.append(server)
        return f"127.0.0.1:{port}"

    def stop_worker(self, index: int) -> None:
        self._servers[index].stop(0)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: Any) -> None:
        for server in self._servers:
            server.stop(0).wait()
