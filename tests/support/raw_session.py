"""A worker's session spoken by hand: claim, push, submit, one message at a time, so that a test chooses the interleaving.

It computes nothing: the test says what each contribution adds to each slot of the counter model.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import xxhash

from ballast.channel import hello, open_channel
from ballast.v1 import control_pb2, control_pb2_grpc, run_pb2, shard_pb2, shard_pb2_grpc
from tests.support.cluster import patience, wait_for

INIT_PARTITION = 0xFFFFFFFF
WAIT_S = patience(10)


class Silence(AssertionError):
    """What must be said within the time limit was not said."""


class _Stream:
    """A bidirectional call whose messages are written and read by the test's thread."""

    def __init__(self, method: Any) -> None:
        self._out: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._in: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._call = method(iter(self._out.get, None))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self._call:
                self._in.put(message)
            self._in.put(None)
        except grpc.RpcError as e:
            self._in.put(e)

    def send(self, message: Any) -> None:
        self._out.put(message)

    def next(self, seconds: float) -> Any:
        """The next message; None when the other side ended the stream. Raises Silence, or what broke the stream."""
        try:
            message = self._in.get(timeout=seconds)
        except queue.Empty:
            raise Silence(f"nothing came within {seconds:.0f} s") from None
        if isinstance(message, grpc.RpcError):
            raise message
        return message

    def close(self) -> None:
        self._call.cancel()
        self._out.put(None)


def batch(seq: int, rows: int, epoch: int = 1, partition: int = 0) -> Any:
    return run_pb2.Batch(epoch=epoch, partition=partition, seq=seq, rows=rows, fingerprint=1000 + seq)


class RawSession:
    """One session of `run`. Opened by the constructor; `drop` ends the stream as a crash would."""

    def __init__(self, address: str, run: str, worker: str, resume: int = 0) -> None:
        self._control = open_channel(address)
        self._pushes: dict[int, tuple[grpc.Channel, _Stream]] = {}
        self._counter = 0
        self._kept: list[Any] = []  # read while something else was awaited
        self.welcome = wait_for("a session", lambda: self._open(control_pb2.WorkUp.Open(hello=hello(), run=run, worker=worker, resume_session=resume)), WAIT_S)
        self.run = self.welcome.run
        self.id = self.welcome.session

    def _open(self, message: Any) -> Any:
        """The welcome; None while the servers have not all come back: a worker tries again too."""
        self._work = _Stream(control_pb2_grpc.ControlStub(self._control).Work)
        self._work.send(control_pb2.WorkUp(open=message))
        try:
            return self.expect("welcome")
        except grpc.RpcError as e:
            if e.code() != grpc.StatusCode.UNAVAILABLE:  # type: ignore[attr-defined]
                raise
            self._work.close()
            return None

    # ---- the Work stream

    def claim(self, claimed: Any, uid: Any = None) -> None:
        self._work.send(control_pb2.WorkUp(claim=control_pb2.WorkUp.Claim(batch=claimed, uid=uid)))

    def granted(self, claimed: Any) -> Any:
        """Claims and waits for the grant."""
        self.claim(claimed)
        grant = self.expect("grant")
        assert grant.batch == claimed, grant
        return grant

    def submit(self, uid: Any, batches: list[Any], base_version: int, receipts: list[Any]) -> None:
        message = control_pb2.WorkUp.Submit(uid=uid, batches=batches, rows=sum(b.rows for b in batches), base_version=base_version, receipts=receipts)
        self._work.send(control_pb2.WorkUp(submit=message))

    def blocked(self) -> None:
        """Says that nothing more can come."""
        self._work.send(control_pb2.WorkUp(status=control_pb2.WorkUp.Status(blocked=True)))

    def expect(self, kind: str, seconds: float = WAIT_S) -> Any:
        """The next message of that kind; others are kept for later. Raises Silence when it does not come."""
        for message in self._kept:
            if message.WhichOneof("kind") == kind:
                self._kept.remove(message)
                return getattr(message, kind)
        while True:
            try:
                message = self._work.next(seconds)
            except Silence:
                kept = ", ".join(str(m.WhichOneof("kind")) for m in self._kept) or "nothing"
                raise Silence(f"no {kind} within {seconds:.0f} s; {kept} came instead") from None
            assert message is not None, f"the stream ended before {kind}"
            if message.WhichOneof("kind") == kind:
                return getattr(message, kind)
            self._kept.append(message)

    def hears(self, kind: str, seconds: float) -> bool:
        """Whether such a message comes in time; it is taken."""
        try:
            self.expect(kind, seconds)
        except Silence:
            return False
        return True

    def accepted(self, uid: Any, seconds: float = WAIT_S) -> int:
        """Waits until the contribution is decided and accepted by every server. Returns its version."""
        while True:
            decided = self.expect("decided", seconds)
            if decided.uid == uid and decided.accepted:
                return int(decided.version)

    def drop(self) -> None:
        self._work.close()
        self._control.close()
        for channel, stream in self._pushes.values():
            stream.close()
            channel.close()

    # ---- contributions

    def new_uid(self) -> Any:
        self._counter += 1
        return run_pb2.Uid(session=self.id, counter=self._counter)

    def push(self, uid: Any, values: npt.NDArray[np.float32], addresses: dict[int, str]) -> None:
        """Sends one contribution to the given servers: gradients (or initial values) of the run's only tensor."""
        for shard, address in addresses.items():
            blocks = [b for b in self.run.layout if b.shard == shard]
            chunk = shard_pb2.Chunk(run=self.run.spec.name, generation=self.run.generation, session=uid.session, uid=uid.counter, last=True)
            payload = b""
            for block in blocks:
                data = np.asarray(values[block.first : block.first + block.count], dtype="<f4").tobytes()
                chunk.blocks.add(
                    tensor=block.tensor, first=block.first, count=block.count, codec=run_pb2.CODEC_FP32, bytes=len(data),
                    checksum=xxhash.xxh3_64_intdigest(data),
                )  # fmt: skip
                payload += data
            chunk.payload = payload
            self._push_stream(shard, address).send(chunk)

    def receipt(self, shard: int, seconds: float = WAIT_S) -> Any:
        reply = self._pushes[shard][1].next(seconds)
        assert reply is not None and not reply.error, reply
        return control_pb2.Receipt(shard=shard, incarnation=reply.incarnation, checksum=reply.checksum, norm2=reply.norm2, proof=reply.proof)

    def contribute(self, batches: list[Any], values: npt.NDArray[np.float32], base_version: int, addresses: dict[int, str]) -> Any:
        """Pushes, waits for the receipts, submits. Returns the uid."""
        uid = self.new_uid()
        self.push(uid, values, addresses)
        self.submit(uid, batches, base_version, [self.receipt(s) for s in addresses])
        return uid

    def _push_stream(self, shard: int, address: str) -> _Stream:
        if shard not in self._pushes:
            channel = open_channel(address)
            self._pushes[shard] = (channel, _Stream(shard_pb2_grpc.ShardStub(channel).Push))
        return self._pushes[shard][1]

    def forget_stream(self, shard: int) -> None:
        """The server was restarted: the next push opens a stream again."""
        channel, stream = self._pushes.pop(shard)
        stream.close()
        channel.close()

    def initialise(self, values: npt.NDArray[np.float32], addresses: dict[int, str]) -> None:
        """Makes version 1."""
        initial = run_pb2.Batch(partition=INIT_PARTITION)
        grant = self.granted(initial)
        self.accepted(self.contribute([initial], values, grant.base_version, addresses))


