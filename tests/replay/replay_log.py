"""Replays the log of a run with numpy and prints version and state hash of every shard.

Written from docs/wire_format.md alone: it shares no code with the servers, not even the generated protobuf classes, so that its agreement
says something. It needs the whole log (`ballast-server --log-retain=all`) of a server that is stopped, or of a copy.

    python tests/replay/replay_log.py DATA_DIR [DATA_DIR ...] [--run NAME] [--versions] [--json]

Exit status 1 and a message with file and offset when something that was synced is damaged or missing.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash

MAGIC = b"BLLG"
RUN, CONTRIBUTION, DECISION, HASH_ROOT, PAD = 1, 2, 3, 4, 5
FP32, BF16, INT8, I64 = 1, 2, 3, 4
OPT, SUM, MEAN, SET = 1, 2, 3, 4
SGD, ADAM, ADAMW = 1, 2, 3
STEP, INIT, CHECKPOINT, EVICT, ROLLBACK, SKIP = 1, 2, 3, 4, 5, 6
HYPER = 8
F = np.float32


class LogError(Exception):
    """The log cannot be believed, or this replayer does not know what it says."""


def xxh3(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)


# ---- protobuf's wire format ------------------------------------------------------------------------------------------------------------


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value): an integer for varint, fixed32 and fixed64, bytes for the rest."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = int.from_bytes(data[at : at + size], "little"), at + size
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise LogError(f"wire type {kind}")
        yield tag >> 3, value


def message(data: bytes) -> dict[int, list]:
    out: dict[int, list] = {}
    for number, value in fields(data):
        out.setdefault(number, []).append(value)
    return out


def last(fields_of: dict[int, list], number: int, default=0):
    return fields_of[number][-1] if number in fields_of else default


def varints(fields_of: dict[int, list], number: int) -> list[int]:
    """A repeated integer, packed or not; negative ones as two's complement of 64 bits."""
    out = []
    for value in fields_of.get(number, []):
        if isinstance(value, int):
            out.append(value)
            continue
        at = 0
        while at < len(value):
            one, at = varint(value, at)
            out.append(one)
    return out


def float_of(bits: int) -> np.float32:
    return np.frombuffer(struct.pack("<I", bits), "<f4")[0]


# ---- segments and records --------------------------------------------------------------------------------------------------------------


@dataclass
class Record:
    kind: int
    body: bytes
    sequence: int
    previous: int
    chain: int
    end: int


def header_at(data: bytes, at: int, segment: int) -> tuple | None:
    head = data[at : at + 64]
    if len(head) < 64 or head[:4] != MAGIC or xxh3(head[:56]) != struct.unpack_from("<Q", head, 56)[0]:
        return None
    _, form, kind, flags, size, number, sequence, synced, previous, chain = struct.unpack("<4sHHIIQQQQQ", head[:56])
    if number != segment:
        return None
    if form != 1 or flags != 0 or not RUN <= kind <= PAD:
        raise LogError(f"format {form}, kind {kind}, flags {flags}: made by another release")
    return kind, size, sequence, synced, previous, chain


def record_at(data: bytes, at: int, segment: int) -> Record | None:
    header = header_at(data, at, segment)
    if header is None:
        return None
    kind, size, sequence, _, previous, chain = header
    body = data[at + 64 : at + 64 + size]
    if len(body) != size or xxh3(data[at : at + 48] + body) != chain:
        return None
    return Record(kind, body, sequence, previous, chain, at + 64 + (size + 7) // 8 * 8)


def highest_synced(data: bytes, at: int, segment: int) -> int:
    highest = 0
    at = data.find(MAGIC, at)
    while at >= 0:
        header = header_at(data, at, segment)
        if header:
            highest = max(highest, header[3])
        at = data.find(MAGIC, at + 1)
    return highest


def records(directory: Path) -> Iterator[Record]:
    """Every record of a shard's log, in order, chain and sequence checked."""
    sequence = chain = None
    for path in sorted(directory.glob("[0-9]*.log"), key=lambda p: int(p.stem)):
        data, segment, at = path.read_bytes(), int(path.stem), 0
        while True:
            record = record_at(data, at, segment)
            follows = record and (sequence is None or (record.sequence, record.previous) == (sequence, chain))
            if not follows:
                if sequence is not None and highest_synced(data, at, segment) >= sequence:
                    raise LogError(f"{path}, offset {at}: record {sequence} was synced and is damaged or missing")
                break
            yield record
            sequence, chain, at = record.sequence + 1, record.chain, record.end


# ---- arithmetic ------------------------------------------------------------------------------------------------------------------------


def decode(codec: int, count: int, data: bytes) -> np.ndarray:
    if codec == FP32:
        return np.frombuffer(data, "<f4").copy()
    if codec == I64:
        return np.frombuffer(data, "<i8").copy()
    if codec == BF16:
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(F)
    if codec == INT8:
        groups = (count + 255) // 256
        scales = np.frombuffer(data[: 4 * groups], "<f4")
        codes = np.frombuffer(data[4 * groups :], "i1")
        return codes.astype(F) * np.repeat(scales, 256)[:count]
    raise LogError(f"codec {codec}")


def ordered_sum(parts: list[np.ndarray]) -> np.ndarray:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def sgd(h: np.ndarray, g: np.ndarray, w: np.ndarray, slots: list[np.ndarray]) -> np.ndarray:
    lr, decay, momentum, dampen, nesterov, first = h[:6]
    if decay != 0:
        g = g + decay * w
    if slots:
        slots[0] = g if first != 0 else momentum * slots[0] + dampen * g
        g = g + momentum * slots[0] if nesterov != 0 else slots[0]
    return w - lr * g


def adam(kernel: int, h: np.ndarray, g: np.ndarray, w: np.ndarray, slots: list[np.ndarray]) -> np.ndarray:
    _, decay, take1, keep2, take2, correction2, eps, step_size = h
    if kernel == ADAMW:
        w = w * decay
    elif decay != 0:
        g = g + decay * w
    slots[0] = slots[0] + take1 * (g - slots[0])
    slots[1] = keep2 * slots[1] + take2 * (g * g)
    return w - step_size * (slots[0] / (np.sqrt(slots[1]) * correction2 + eps))


# ---- a shard ---------------------------------------------------------------------------------------------------------------------------


@dataclass
class Block:
    tensor: int
    rule: int
    group: int
    values: np.ndarray
    slots: list[np.ndarray]

    def digest(self) -> int:
        return xxh3(self.values.tobytes() + b"".join(slot.tobytes() for slot in self.slots))


@dataclass
class Contribution:
    blocks: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    next_index: int = 0
    complete: bool = False


@dataclass
class Shard:
    run: str = ""
    shard: int = -1
    blocks: dict[tuple[int, int], Block] = field(default_factory=dict)
    undecided: dict[tuple[int, int], Contribution] = field(default_factory=dict)
    index: int = 0
    version: int = 0
    chain: int = 0
    roots: dict[int, int] = field(default_factory=dict)
    roots_checked: int = 0
    checkpoints: dict[int, list] = field(default_factory=dict)  # by version: values and slots of every block, to go back to
    contributions: int = 0

    def root(self) -> int:
        return xxh3(b"".join(struct.pack("<Q", block.digest()) for block in self.blocks.values()))

    def on_run(self, body: bytes) -> None:
        if self.run:
            return  # again at the start of each segment
        self.shard, _ = struct.unpack_from("<II", body)
        run = message(body[8:])
        spec = message(last(run, 1, b""))
        self.run = last(spec, 1, b"").decode()
        tensors = [message(t) for t in spec.get(4, [])]
        slots = self.slots_of(message(last(spec, 5, b"")))
        for data in run.get(5, []):
            block = message(data)
            if last(block, 4) != self.shard:
                continue
            tensor = tensors[last(block, 1)]
            rule, dtype, count = last(tensor, 4), last(tensor, 3), last(block, 3)
            n = slots if rule == OPT else 0
            values = np.zeros(count, "<i8" if dtype == 2 else "<f4")
            self.blocks[last(block, 1), last(block, 2)] = Block(
                last(block, 1), rule, last(tensor, 5), values, [np.zeros(count, "<f4") for _ in range(n)]
            )

    @staticmethod
    def slots_of(optimizer: dict[int, list]) -> int:
        if last(optimizer, 1) != SGD:
            return 2
        return 0 if last(optimizer, 3) == 0 else 1  # momentum: the bits of a double

    def on_chunk(self, body: bytes) -> None:
        chunk = message(body)
        uid, index = (last(chunk, 3), last(chunk, 4)), last(chunk, 6)
        held = self.undecided.get(uid)
        if held and held.complete:
            return
        if index == 0:
            held = self.undecided[uid] = Contribution()
        if held is None or held.next_index != index:
            raise LogError(f"contribution {uid}: chunk {index} is out of order")
        payload, at = last(chunk, 15, b""), 0
        for data in chunk.get(8, []):
            head = message(data)
            count, size = last(head, 3), last(head, 5)
            held.blocks[last(head, 1), last(head, 2)] = decode(last(head, 4), count, payload[at : at + size])
            at += size
        held.next_index += 1
        held.complete = bool(last(chunk, 7))
        self.contributions += held.complete

    def on_decision(self, body: bytes) -> None:
        decision = message(body)
        index = last(decision, 3)
        if index <= self.index:
            return  # logged again after a restart
        if index != self.index + 1:
            raise LogError(f"decision {index} follows {self.index}")
        self.check_chain(body, decision)
        kind = last(decision, 5)
        if kind in (STEP, INIT):
            self.apply(decision, kind)
        elif kind == CHECKPOINT:
            self.checkpoints[last(decision, 13)] = [(b.values.copy(), [s.copy() for s in b.slots]) for b in self.blocks.values()]
        elif kind == ROLLBACK:
            for block, (values, slots) in zip(self.blocks.values(), self.checkpoints[last(decision, 15)]):
                block.values, block.slots = values.copy(), [s.copy() for s in slots]
        elif kind not in (SKIP, EVICT):
            raise LogError(f"decision {index} is of kind {kind}, which this replayer does not know")
        closed_below = last(decision, 12)
        self.undecided = {uid: held for uid, held in self.undecided.items() if uid[0] >= closed_below}
        self.index, self.version, self.chain = index, last(decision, 13), last(decision, 4)
        if self.version % 16 == 0:
            self.roots[self.version] = self.root()

    def check_chain(self, body: bytes, decision: dict[int, list]) -> None:
        tag = b"\x21" + struct.pack("<Q", last(decision, 4))  # field 4, fixed64; it follows fields 1 to 3
        at = 0
        while body[at] >> 3 < 4:
            at = next_field(body, at)
        if body[at : at + 9] != tag or xxh3(struct.pack("<Q", self.chain) + body[:at] + body[at + 9 :]) != last(decision, 4):
            raise LogError(f"decision {last(decision, 3)} does not fit the chain")

    def apply(self, decision: dict[int, list], kind: int) -> None:
        scale = float_of(last(decision, 9)) / float_of(last(decision, 8))
        hyper = np.frombuffer(b"".join(decision.get(10, [])), "<f4").reshape(-1, HYPER)
        kernel = last(decision, 11)
        parts: list[tuple[int, Contribution]] = []
        for data in decision.get(6, []):
            part = message(data)
            names = message(last(part, 1, b""))
            uid = (last(names, 1), last(names, 2))
            held = self.undecided.pop(uid, None)
            if held is None or not held.complete:
                raise LogError(f"decision {last(decision, 3)} needs contribution {uid}, which is not in the log: acknowledged data is gone")
            parts.append((last(part, 2), held))
        for key, block in self.blocks.items():
            with_block = [(rows, held.blocks[key]) for rows, held in parts if key in held.blocks]
            if with_block:
                self.update(block, SET if kind == INIT else block.rule, with_block, scale, hyper, kernel)
            if kind == INIT:
                block.slots = [np.zeros_like(slot) for slot in block.slots]

    @staticmethod
    def update(block: Block, rule: int, parts: list[tuple[int, np.ndarray]], scale: np.float32, hyper: np.ndarray, kernel: int) -> None:
        if rule == SET:
            block.values = parts[-1][1].copy()
            return
        total = ordered_sum([values for _, values in parts])
        if rule == SUM:
            block.values = block.values + total
        elif rule == MEAN:
            block.values = total / F(sum(rows for rows, _ in parts))
        elif rule == OPT:
            h, g = hyper[block.group], total * scale
            if kernel == SGD:
                block.values = sgd(h, g, block.values, block.slots)
            elif kernel in (ADAM, ADAMW):
                block.values = adam(kernel, h, g, block.values, block.slots)
            else:
                raise LogError(f"kernel_id {kernel}")
        else:
            raise LogError(f"rule {rule}")

    def on_hash_root(self, body: bytes) -> None:
        _, version, root = struct.unpack("<QQQ", body)
        mine = self.root() if version == self.version else self.roots.get(version)
        if mine != root:
            raise LogError(f"HASH_ROOT of version {version} is {root:016x}; replayed: " + ("unknown" if mine is None else f"{mine:016x}"))
        self.roots_checked += 1


def next_field(data: bytes, at: int) -> int:
    tag, at = varint(data, at)
    if tag & 7 == 2:
        size, at = varint(data, at)
        return at + size
    return varint(data, at)[1] if tag & 7 == 0 else at + (8 if tag & 7 == 1 else 4)


def replay(directory: Path, on_version=lambda shard: None) -> Shard:
    """The state that the log in `directory` (…/runs/RUN/shard-S) ends in; calls on_version after every decision that made a version."""
    shard = Shard()
    handlers = {RUN: shard.on_run, CONTRIBUTION: shard.on_chunk, DECISION: shard.on_decision, HASH_ROOT: shard.on_hash_root}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for record in records(directory):
            if record.sequence == 1 and record.kind != RUN:
                raise LogError(f"{directory}: the log does not begin with a RUN record")
            if not shard.run and record.sequence != 1:
                raise LogError(f"{directory}: the beginning of the log is gone (--log-retain=all keeps it)")
            before = shard.version
            handlers.get(record.kind, lambda body: None)(record.body)
            if shard.version != before:
                on_version(shard)
    return shard


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, nargs="+", help="data directory of a server (each of them for all shards)")
    parser.add_argument("--run", default="*", help="only this run")
    parser.add_argument("--versions", action="store_true", help="the hash of every version, not only of the last")
    parser.add_argument("--json", action="store_true", help="one object a line")
    options = parser.parse_args()
    directories = sorted({d for root in options.data_dir for d in root.glob(f"**/runs/{options.run}/shard-*")})
    if not directories:
        print(f"no log of run {options.run!r} below {', '.join(map(str, options.data_dir))}", file=sys.stderr)
        return 1

    def show(shard: Shard) -> None:
        row = dict(run=shard.run, shard=shard.shard, version=shard.version, index=shard.index, hash=f"{shard.root():016x}")
        print(json.dumps(row) if options.json else " ".join(f"{k}={v}" for k, v in row.items()))

    for directory in directories:
        try:
            shard = replay(directory, show if options.versions else lambda shard: None)
        except LogError as error:
            print(f"{directory}: {error}", file=sys.stderr)
            return 1
        if not options.versions:
            show(shard)
        print(f"{directory}: {shard.contributions} contributions, {shard.roots_checked} hash roots checked", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
