"""Writes the inputs that were thought of, not found: tests/fuzz/corpus/TARGET/seed-NAME. Good messages, and each hostile value by its name.

Usage: PYTHONPATH=client/python VENV/bin/python tests/fuzz/make_seeds.py
The first byte (or bytes) of an input chooses what a target does with the rest: see LLVMFuzzerTestOneInput of each.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from ballast.v1 import control_pb2, run_pb2, shard_pb2, worker_pb2

CORPUS = Path(__file__).parent / "corpus"
NAMES = {"slash": "../../etc/passwd", "nul": "a\0b", "unicode": "r\u00fcn\u202e\U0001f4a5", "long": "x" * 3000, "empty": "", "dots": ".."}
HUGE = {"2-31": 1 << 31, "2-32": 1 << 32, "2-40": 1 << 40, "2-62": 1 << 62, "2-63-1": (1 << 63) - 1, "minus-1": -1, "zero": 0}


def write(target: str, name: str, data: bytes) -> None:
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data)


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def chunk(**changes: object) -> shard_pb2.Chunk:
    message = shard_pb2.Chunk(run="run", generation=1, session=1 << 32, uid=1, last=True)
    block = dict(tensor=0, first=0, count=4, codec=run_pb2.CODEC_FP32, bytes=16, checksum=7)
    message.blocks.add(**{**block, **changes})
    message.payload = b"\0" * 16
    return message


def chunks() -> None:
    good = chunk().SerializeToString()
    cases = {
        "good": good,
        "cut": good[:-9],
        "count-zero": chunk(count=0).SerializeToString(),
        "count-2-32": chunk(count=0xFFFFFFFF).SerializeToString(),
        "bytes-2-32": chunk(bytes=0xFFFFFFFF).SerializeToString(),
        "first-2-64": chunk(first=(1 << 64) - 1).SerializeToString(),
        "codec-99": chunk(codec=99).SerializeToString(),
        "payload-claims-2-63": good[: good.rindex(b"\x7a\x10")] + b"\x7a" + varint(1 << 63),
        "payload-twice": good + b"\x7a\x02ab",
        "field-behind-payload": good + b"\x10\x01",
        "name-claims-2-40": b"\x0a" + varint(1 << 40) + b"x",
        "varint-11-bytes": b"\x10" + b"\xff" * 11,
        "group": b"\x0b\x0c",
        "5000-blocks": b"\x42\x00" * 5000,
    }
    for name, text in NAMES.items():
        message = chunk()
        message.run = text
        cases["run-" + name] = message.SerializeToString()
    for name, data in cases.items():
        write("chunk", name, b"\0" + data)
        write("chunk_split", name, b"\3\1\7\x0b" + data)
    reply = shard_pb2.PushReply(run="run", session=1, uid=2, incarnation=3, checksum=4, norm2=float("nan"), shard=1, error="NONFINITE", detail="x" * 5000)
    write("chunk", "reply", b"\2" + reply.SerializeToString())
    want = shard_pb2.Want(run="run", generation=1, number=2, min_version=(1 << 64) - 1, codec=run_pb2.CODEC_INT8, tensors=[0, 1, 0xFFFFFFFF], slots=True)
    write("chunk", "want", b"\3" + want.SerializeToString())
    write("chunk", "want-codec-i64", b"\3" + shard_pb2.Want(run="run", codec=run_pb2.CODEC_I64).SerializeToString())


def codecs() -> None:
    # kind 2: a count that fits the bytes; then the codec: 1 fp32, 2 bf16, 3 int8, 4 i64
    for name, value in {"nan": float("nan"), "inf": float("inf"), "max": 3.4e38, "tiny": 1e-45, "negative": -1.0}.items():
        scale = struct.pack("<f", value)
        write("codec", f"int8-scale-{name}", b"\2\3" + b"\0" + scale + bytes(range(40)))
        write("codec", f"fp32-{name}", b"\2\1" + b"\0" + scale * 5)
        write("codec", f"residual-{name}", b"\0\3" + scale * 20)
    write("codec", "int8-code-minus-128", b"\2\3\0" + struct.pack("<f", 1) + b"\x80" * 8)
    write("codec", "bf16", b"\2\2\0" + b"\x80\x7f" * 9)
    write("codec", "count-2-64", b"\1\1\xca")


def spec(**changes: object) -> run_pb2.RunSpec:
    message = run_pb2.RunSpec(name="run", model_sha256="0" * 64, step_rows=64, batch_rows=16, schema="x:float32[3]")
    message.tensors.add(name="w", shape=[3, 5], dtype=run_pb2.F32, rule=run_pb2.OPT, source_dtype="float32", aliases=["v"])
    message.tensors.add(name="n", dtype=run_pb2.I64, rule=run_pb2.SET)
    message.optimizer.kind = run_pb2.OptimizerSpec.ADAMW
    message.optimizer.lr = 0.1
    message.optimizer.groups.add(lr_scale=1)
    for field, value in changes.items():
        setattr(message, field, value)
    return message


def runs() -> None:
    write("convert_run", "good", b"\0" + spec().SerializeToString())
    for name, text in NAMES.items():
        write("convert_run", f"name-{name}", b"\0" + spec(name=text).SerializeToString())
        tensor = spec()
        tensor.tensors[0].name = text
        write("convert_run", f"tensor-name-{name}", b"\0" + tensor.SerializeToString())
    for name, dim in HUGE.items():
        tensor = spec()
        tensor.tensors[0].shape[:] = [dim, dim]
        write("convert_run", f"dims-{name}", b"\0" + tensor.SerializeToString())
        run = run_pb2.Run(spec=tensor, generation=1)
        run.layout.add(tensor=0, first=0, count=dim % (1 << 64))
        write("convert_run", f"layout-{name}", b"\1" + run.SerializeToString())
    for name, value in {"nan": float("nan"), "inf": float("inf"), "negative": -1.0}.items():
        write("convert_run", f"clip-{name}", b"\0" + spec(clip_norm=value).SerializeToString())
        bad = spec()
        bad.optimizer.lr = value
        write("convert_run", f"lr-{name}", b"\0" + bad.SerializeToString())
    bad = spec()
    bad.tensors[0].dtype = 77
    write("convert_run", "dtype-77", b"\0" + bad.SerializeToString())
    run = run_pb2.Run(spec=spec(), generation=1)
    run.layout.add(tensor=0, first=0, count=15)
    run.layout.add(tensor=1, first=0, count=1, shard=0xFFFFFFFF)
    write("convert_run", "run", b"\1" + run.SerializeToString())


def decision() -> run_pb2.Decision:
    message = run_pb2.Decision(run="run", generation=1, index=1, chain=5, kind=run_pb2.Decision.STEP, divisor=0x7FC00001, clip_scale=0x3F800000, kernel_id=1)
    message.hyper.extend([0x7F800000, 1, 2])
    part = message.parts.add(rows=(1 << 64) - 1, base_version=2, loss_sum=float("nan"))
    part.uid.session, part.uid.counter = 1 << 63, 9
    part.batches.add(epoch=1, partition=0xFFFFFFFF, seq=(1 << 64) - 1, rows=0, fingerprint=3)
    message.skipped.add(reason="why").batch.seq = 4
    return message


def streams() -> None:
    data = decision().SerializeToString()
    write("decision", "good", data)
    write("decision", "cut", data[:-3])
    write("decision", "kind-99", data + b"\x28\x63")
    write("decision", "hyper-not-packed", data + b"\x55\0\0\x80\x3f")
    write("decision", "hyper-7-bytes", data + b"\x52\x07" + b"\0" * 7)
    write("decision", "uid-twice", b"\x32\x08\x0a\x02\x08\x01\x0a\x02\x10\x02\x28\x01")
    write("decision", "part-claims-2-40", b"\x32" + varint(1 << 40))
    up = control_pb2.WorkUp()
    up.submit.uid.session = 1
    up.submit.rows = (1 << 64) - 1
    up.submit.receipts.add(shard=0xFFFFFFFF, norm2=float("inf"))
    up.submit.timing.add(phase="p\0", seconds=float("-inf"))
    write("convert_control", "submit", b"\0" + up.SerializeToString())
    down = control_pb2.WorkDown()
    down.refuse.reason = 3
    down.refuse.shards.append(0xFFFFFFFF)
    write("convert_control", "refuse", b"\1" + down.SerializeToString())
    down.refuse.reason = 99
    write("convert_control", "refuse-99", b"\1" + down.SerializeToString())
    position = control_pb2.ShardUp()
    position.position.index = (1 << 64) - 1
    position.position.undecided.add(session=1)
    write("convert_control", "position", b"\2" + position.SerializeToString())
    shard = control_pb2.ShardDown()
    shard.decision.CopyFrom(decision())
    write("convert_control", "decision", b"\3" + shard.SerializeToString())
    manifest = run_pb2.Manifest(run="run", version=(1 << 64) - 1, ledger=b"BLG1", created_unix_ms=-1, loss=float("nan"))
    write("convert_control", "manifest", b"\4" + manifest.SerializeToString())


def feeds() -> None:
    schema = b"tokens:int32[2],y:int64"
    good = worker_pb2.FeedUp(rows=worker_pb2.FeedUp.Rows(seq=1, rows=2, fingerprint=3, first_row_id="id"))
    good.rows.columns.add(name="tokens", data=b"\0" * 16)
    good.rows.columns.add(name="y", data=b"\0" * 16)

    def case(name: str, message: worker_pb2.FeedUp, text: bytes = schema) -> None:
        write("feed", name, b"\x10" + bytes([len(text)]) + text + message.SerializeToString())

    case("good", good)
    for name, rows in {"zero": 0, "2-32": 0xFFFFFFFF, "17": 17}.items():
        bad = worker_pb2.FeedUp()
        bad.CopyFrom(good)
        bad.rows.rows = rows
        case(f"rows-{name}", bad)
    bad = worker_pb2.FeedUp()
    bad.CopyFrom(good)
    bad.rows.first_row_id = "\u00e9" * 4000
    bad.rows.columns[0].name = "n" * 5000
    case("long-names", bad)
    for name, text in {"dims-overflow": b"a:int64[4294967296x4294967296]", "dim-negative": b"a:int8[-1]", "dtype": b"a:complex64", "no-end": b"a:int8[2", "empty": b""}.items():
        case(f"schema-{name}", good, text)


def descriptions() -> None:
    def description(**changes: object) -> dict[str, object]:
        column = {"name": "x", "dtype": "float32", "shape": [3]}
        tensor = {"name": "w", "dtype": "float32", "shape": [2], "rule": "OPT", "aliases": ["v"]}
        return {"format": 1, "inputs": [column], "label": {"name": "y", "dtype": "int64", "shape": []}, "outputs": [column], "loss": "mse", "tensors": [tensor], **changes}

    write("description", "good", json.dumps(description()).encode())
    for name, dim in HUGE.items():
        write("description", f"dims-{name}", json.dumps(description(inputs=[{"name": "x", "dtype": "int8", "shape": [dim, dim]}])).encode())
    write("description", "dim-1e400", json.dumps(description()).replace("[3]", "[1e400]").encode())
    write("description", "dim-2-64", json.dumps(description()).replace("[3]", "[18446744073709551615]").encode())
    for name, text in NAMES.items():
        tensor = {"name": text, "dtype": "float32", "shape": [], "rule": "OPT", "aliases": [text]}
        write("description", f"name-{name}", json.dumps(description(tensors=[tensor])).encode())
    write("description", "format-2", json.dumps(description(format=2)).encode())
    write("description", "deep", b"[" * 2000)
    write("description", "not-utf8", b'{"format":1,"loss":"\xff\xfe"}')


def weights() -> None:
    def header(name: str, entries: object, data: bytes = b"") -> None:
        write("safetensors", name, b"\2" + bytes([len(data)]) + data + json.dumps(entries).encode())

    w = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    rest = {"n": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]}, "b": {"dtype": "F16", "shape": [4], "data_offsets": [32, 40]}}
    header("good", {"w": w, **rest, "__metadata__": {"a": "b"}}, bytes(40))
    for name, dim in HUGE.items():
        header(f"dims-{name}", {"w": {**w, "shape": [dim, dim]}}, bytes(40))
        header(f"offsets-{name}", {"w": {**w, "data_offsets": [dim, 24]}}, bytes(40))
    for name, text in NAMES.items():
        header(f"name-{name}", {text: w, **rest}, bytes(40))
    header("dtype", {"w": {**w, "dtype": "Q4" * 2000}}, bytes(40))
    header("offsets-backwards", {"w": {**w, "data_offsets": [24, 0]}}, bytes(40))
    write("safetensors", "header-claims-2-63", b"\0" + struct.pack("<Q", 1 << 63) + b"{}")
    write("safetensors", "written", b"\1" + bytes(range(1, 200)))


def requests() -> None:
    # The protobuf of ModelInferRequest by hand: the stubs of grpc_service.proto are not generated for Python.
    def field(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    def tensor(name: bytes, datatype: bytes, shape: list[int]) -> bytes:
        return field(5, field(1, name) + field(2, datatype) + field(3, b"".join(varint(d % (1 << 64)) for d in shape)))

    def request(*inputs: bytes, raw: tuple[bytes, ...] = (), outputs: tuple[bytes, ...] = ()) -> bytes:
        return b"\2" + field(1, b"run") + b"".join(inputs) + b"".join(field(6, field(1, o)) for o in outputs) + b"".join(field(7, r) for r in raw)

    u, i, d = tensor(b"u", b"UINT8", [2, 1]), tensor(b"i", b"INT64", [2]), tensor(b"d", b"FP64", [2])
    good = (bytes(2), bytes(16), bytes(16))
    write("infer", "good", request(u, i, d, raw=good))
    write("infer", "output-twice", request(u, i, d, raw=good, outputs=(b"y",) * 300))
    write("infer", "output-unknown", request(u, i, d, raw=good, outputs=(b"n" * 30000,)))
    write("infer", "input-long-name", request(u, i, d, tensor(b"n" * 30000, b"INT8", [1]), raw=(*good, b"")))
    write("infer", "input-twice", request(u, u, i, d, raw=(bytes(2), *good)))
    write("infer", "raw-missing", request(u, i, d, raw=good[:2]))
    for name, rows in HUGE.items():
        write("infer", f"rows-{name}", request(tensor(b"u", b"UINT8", [rows, 1]), i, d, raw=good))
        write("infer", f"dims-{name}", request(tensor(b"u", b"UINT8", [2, rows]), i, d, raw=good))
    write("infer", "datatype", request(tensor(b"u", b"BYTES" * 5000, [2, 1]), i, d, raw=good))


def servers() -> None:
    """Sequences of calls that get far: see hostile_peer.cc for what each byte chooses (0 mostly: as it should be)."""
    plain, sent = bytes(1), bytes(2)  # unspoiled; and answered
    train_init = b"\4\3\0" + plain + bytes(2) + plain + bytes(1) + bytes(1) + plain
    train = b"\4\0\0\0\0" + plain + bytes(2) + plain + bytes(1) + bytes(1) + plain
    work = b"\2\0" + bytes(2) + plain
    checkpoint, commit = b"\x0c" + bytes(2) + b"\5" + sent, b"\x0d\0" + bytes(2) + bytes(2) + sent
    pull = b"\x0b" + bytes(2) + bytes(5) + plain + b"\0"
    close = b"\x11\0\1"

    def run(how: int) -> bytes:
        return b"\0" + bytes(2) + bytes([how]) + sent + b"\1" + bytes(2) + bytes(2) + sent + work + train_init

    def rollback(version: int) -> bytes:
        return b"\x0c" + bytes(2) + b"\2" + bytes([version]) + sent

    for name, how in {"plain": 0, "clipped-adam": 4 | 8, "volatile": 1 | 16, "checkpoints": 16, "int8": 64, "two-batches": 2}.items():
        write("server", f"train-{name}", run(how) + train * 3 + pull + checkpoint + commit + close)
    write("server", "rollback", run(0) + train + checkpoint + train * 2 + rollback(2) + work + train + pull + rollback(9))
    write("server", "cancelled-submit", run(0) + b"\7\0\0\0\0" + plain + b"\x08" + bytes(2) + plain + bytes(1) + b"\x11\0\0" + work + train)
    write("server", "stop-and-delete", run(0) + train + b"\x0c" + bytes(2) + b"\1" + sent + train + b"\x0c" + bytes(2) + b"\0" + sent + train)
    for method in range(20):
        write("server", f"bytes-{method}", b"\x13" + bytes([method]) + bytes([12]) + b"\x0a\x04name\x10\xff\xff\xff\xff\x0f")


if __name__ == "__main__":
    for make in (chunks, codecs, runs, streams, feeds, descriptions, weights, requests, servers):
        make()
