"""Reading a run: its description, and its weights pulled from all servers.

    weights = ballast.state_dict("news-2026", address="localhost:7070")        # newest checkpoint
    weights = ballast.state_dict("news-2026@1200", address="localhost:7070")   # the checkpoint of version 1200
    weights = ballast.state_dict("news-2026@live", address="localhost:7070")   # what the servers hold now
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

import grpc
import numpy as np
import numpy.typing as npt
import xxhash

from ballast.channel import Connection, open_channel, patiently
from ballast.errors import BallastError, from_rpc

ADDRESS_VARIABLE = "BALLAST_ADDRESS"
_PULL_TIMEOUT_S = 600.0
_PATIENCE_S = 30.0
_LIVE_TRIES = 5

Arrays = dict[str, npt.NDArray[Any]]


def parse_run(text: str) -> tuple[str, str]:
    """ "name@version" -> (name, version); the version is "" when there is none. Names never hold "@"."""
    name, _, version = text.partition("@")
    if not name or (version and version != "live" and not version.isdigit()):
        raise BallastError("BAD_SPEC", f'"{text}" names no run: write "run", "run@version" or "run@live"')
    return name, version


def get_run(connection: Connection, name: str, patience_s: float = 0.0, timeout_s: float = 30.0, full: bool = True) -> Any:
    """The Run message (with layout and tensors when `full`). Raises BallastError(NO_RUN)."""
    from ballast.v1 import control_pb2

    filter_ = control_pb2.RunFilter(name=name, layout=full, spec_tensors=full)
    runs = connection.call("ListRuns", filter_, timeout_s=timeout_s, patience_s=patience_s).runs
    for run in runs:
        if run.spec.name == name:
            return run
    raise BallastError("NO_RUN", f'there is no run "{name}" at {connection.address}', {"run": name}, "NOT_FOUND")


def state_dict(run: Any, address: Optional[str] = None) -> dict[str, Any]:
    """The weights as torch tensors, as module.load_state_dict takes them: the module's own dtypes, shared tensors under every name,
    non-persistent buffers left out.

    run      "name", "name@version", "name@live", or what `train` returned
    address  of server 0; default: where the result came from, else the environment variable BALLAST_ADDRESS
    """
    import torch

    name, connection = _resolve(run, address)
    with connection:
        specs, arrays = pull(connection, name)
    state: dict[str, Any] = {}
    for spec in specs:
        if not spec.persistent:
            continue
        tensor = torch.from_numpy(arrays[spec.name]).to(getattr(torch, spec.source_dtype or "float32"))
        state.update(dict.fromkeys((spec.name, *spec.aliases), tensor))
    return state


def arrays(run: Any, address: Optional[str] = None) -> Arrays:
    """The weights as the servers store them, without torch: float32 and int64, every tensor once under its first name."""
    name, connection = _resolve(run, address)
    with connection:
        return pull(connection, name)[1]


def _resolve(run: Any, address: Optional[str]) -> tuple[str, Connection]:
    name = run if isinstance(run, str) else str(run.run_id)
    address = address or getattr(run, "address", None) or os.environ.get(ADDRESS_VARIABLE)
    if not address:
        raise BallastError("BAD_SPEC", f"which server? Give address=, or set {ADDRESS_VARIABLE}")
    connection = Connection(address)
    connection.check()
    return name, connection


# ---- pulling -----------------------------------------------------------------------------------------------------------------------


def pull(connection: Connection, text: str) -> tuple[list[Any], Arrays]:
    """TensorSpecs and values of "run[@version]". Values of one version on all servers, or BallastError; servers that restart are waited for."""
    name, wanted = parse_run(text)
    return patiently(lambda: _pull_run(connection, name, wanted), f"reading run {text}", _PATIENCE_S)


def _pull_run(connection: Connection, name: str, wanted: str) -> tuple[list[Any], Arrays]:
    run = get_run(connection, name)
    manifest = 0 if wanted == "live" else int(wanted or run.manifest_version)
    if not manifest and not run.version:
        raise BallastError("NO_VALUES", f'run "{name}" has no weights yet: no worker has set the initial ones', {"run": name})
    servers = _servers(connection, {b.shard for b in run.layout})
    for _ in range(1 if manifest else _LIVE_TRIES):
        values = _empty(run.spec.tensors)
        versions = _pull_all(servers, run, manifest, values)
        if len(versions) <= 1:
            return list(run.spec.tensors), {t.name: v for t, v in zip(run.spec.tensors, values)}
        run = get_run(connection, name)
    raise BallastError("RUN_MOVES", f'run "{name}" goes on training and its servers answered for different versions {sorted(versions)}: read a checkpoint instead')


def _servers(connection: Connection, shards: set[int]) -> list[tuple[int, str]]:
    from ballast.v1 import control_pb2

    known = {s.index: s.address for s in connection.call("Cluster", control_pb2.ClusterRequest()).servers}
    known[0] = connection.address  # this way is known to work
    lost = sorted(s for s in shards if not known.get(s))
    if lost:
        raise BallastError("SERVER_MISSING", f"server {lost[0]} of the run is not connected to server 0 at {connection.address}", code="UNAVAILABLE")
    return [(s, known[s]) for s in sorted(shards)]


def _empty(specs: Any) -> list[npt.NDArray[Any]]:
    from ballast.v1 import run_pb2

    return [np.zeros(tuple(t.shape), dtype="<i8" if t.dtype == run_pb2.I64 else "<f4") for t in specs]


def _pull_all(servers: list[tuple[int, str]], run: Any, manifest: int, values: list[npt.NDArray[Any]]) -> set[int]:
    """Fills `values` and returns the versions that the servers answered for."""
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(servers)))) as pool:
        jobs = [pool.submit(_pull_one, shard, address, run, manifest, values) for shard, address in servers]
        return {v for job in jobs for v in job.result()}


def _pull_one(shard: int, address: str, run: Any, manifest: int, values: list[npt.NDArray[Any]]) -> set[int]:
    from ballast.v1 import run_pb2, shard_pb2, shard_pb2_grpc

    want = shard_pb2.Want(
        run=run.spec.name, generation=run.generation, number=1, min_version=run.version, codec=run_pb2.CODEC_FP32, manifest=manifest
    )
    expected = {(b.tensor, b.first): b.count for b in run.layout if b.shard == shard}
    versions: set[int] = set()
    done = threading.Event()

    def wants() -> Iterator[Any]:  # stays open until the answer is here
        yield want
        done.wait()

    with open_channel(address) as channel:
        stub: Any = shard_pb2_grpc.ShardStub(channel)
        call = stub.Pull(wants(), timeout=_PULL_TIMEOUT_S)
        try:
            for chunk in call:
                versions.add(chunk.version)
                _store(chunk, expected, values, address)
                if chunk.last:
                    break
        except grpc.RpcError as e:
            raise from_rpc(e, address) from None
        finally:
            done.set()
            call.cancel()
    if expected:
        raise BallastError("PULL_INCOMPLETE", f"server {shard} at {address} left out {len(expected)} blocks of run {run.spec.name}", code="DATA_LOSS")
    return versions


def _store(chunk: Any, expected: dict[tuple[int, int], int], values: list[npt.NDArray[Any]], address: str) -> None:
    payload = memoryview(chunk.payload)
    for head in chunk.blocks:
        data, payload = payload[: head.bytes], payload[head.bytes :]
        if xxhash.xxh3_64_intdigest(data) != head.checksum:
            raise BallastError("BAD_CHECKSUM", f"{address} sent a damaged block of tensor {head.tensor}", code="DATA_LOSS")
        flat = values[head.tensor].reshape(-1) if head.tensor < len(values) else None
        if flat is None or expected.pop((head.tensor, head.first), None) != head.count or len(data) != head.count * flat.itemsize:
            raise BallastError("BAD_BLOCK", f"{address} sent a block that the layout does not have: tensor {head.tensor}, first {head.first}", code="DATA_LOSS")
        flat[head.first : head.first + head.count] = np.frombuffer(data, dtype=flat.dtype)
