"""The arguments of `train` become a RunSpec. Pure: no server, no Spark job."""

from __future__ import annotations

import numbers
import os
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any, Optional, Union

from ballast.channel import BATCH_BYTES_MAX
from ballast.dtypes import is_float, numpy_dtype
from ballast.errors import BallastError
from ballast.model import ModelFile
from ballast.optim import Constant, Optimizer, Schedule

UNBOUNDED = 4294967295
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_U32, _U64 = (1 << 32) - 1, (1 << 64) - 1
_LIMITS = {
    "epochs": (1, _U32), "batch_rows": (1, _U32), "partitions": (1, _U32), "step_rows": (0, _U64), "contribution_rows": (0, _U64), "seed": (0, _U64),
    "staleness_max": (0, _U32 - 1), "checkpoint_versions": (0, _U32), "checkpoint_seconds": (0, _U32), "skips_max": (0, _U32), "linger_ms": (0, _U32),
}  # fmt: skip
_DELIVERIES = ("exactly_once", "at_least_once")


@dataclass(frozen=True)
class Options:
    """The numbers of a run, as `train` documents them."""

    epochs: int
    batch_rows: int
    step_rows: int
    contribution_rows: int
    partitions: int
    seed: int
    clip_norm: float
    codec: str
    pull_codec: str
    staleness_max: Optional[int]
    reduction: str
    durability: str
    delivery: str
    checkpoint_versions: int
    checkpoint_seconds: int
    skips_max: int
    linger_ms: int
    lease_s: float


def new_run_id(model: ModelFile) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.splitext(os.path.basename(model.path))[0])[:60] or "run"
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def check(options: Options, run_id: str, id_column: Optional[str]) -> None:
    """Raises BallastError(BAD_SPEC) for what no server has to be asked about."""
    if not _NAME.fullmatch(run_id):
        raise BallastError("BAD_SPEC", f'run_id="{run_id}" must have 1 to 100 letters, digits, ".", "_" or "-"')
    for name, (least, most) in _LIMITS.items():
        value = getattr(options, name)
        if value is None and name == "staleness_max":
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not least <= int(value) <= most:
            raise BallastError("BAD_SPEC", f"{name}={value!r} must be an integer from {least} to {most}")
    for name in ("clip_norm", "lease_s"):
        if not 0 <= getattr(options, name) < 4e6:
            raise BallastError("BAD_SPEC", f"{name}={getattr(options, name)} must be from 0 to 4,000,000")
    if options.step_rows and options.batch_rows > options.step_rows:
        raise BallastError("BAD_SPEC", f"batch_rows={options.batch_rows} is more than step_rows={options.step_rows}: a batch is never split over steps")
    if options.delivery not in _DELIVERIES:
        raise BallastError("BAD_SPEC", f'delivery="{options.delivery}" is none of {", ".join(_DELIVERIES)}')
    if id_column is None and options.delivery == "exactly_once":
        raise BallastError(
            "ID_MISSING",
            "exactly-once delivery needs id_col=, a column with a unique and stable id for every row: a retried Spark task must make the same "
            'batches again. Without one, say delivery="at_least_once": rows may then be trained twice after a retry',
        )


def make_spec(model: ModelFile, run_id: str, options: Options, optimizer: Optimizer, schedule: Optional[Schedule]) -> Any:
    """The RunSpec without its init."""
    from ballast.v1 import run_pb2

    _check_batch_bytes(model, options.batch_rows)
    spec = run_pb2.RunSpec(
        name=run_id,
        model_sha256=model.sha256,
        model_json=model.description.text,
        optimizer=optimizer.spec(),
        schedule=(schedule or Constant()).spec(),
        reduction=_named(run_pb2.Reduction, "REDUCTION_", "reduction", options.reduction),
        clip_norm=options.clip_norm or 0.0,
        push_codec=_named(run_pb2.Codec, "CODEC_", "codec", options.codec),
        pull_codec=_named(run_pb2.Codec, "CODEC_", "pull_codec", options.pull_codec),
        step_rows=options.step_rows,
        batch_rows=options.batch_rows,
        contribution_rows=options.contribution_rows,
        staleness_max=UNBOUNDED if options.staleness_max is None else options.staleness_max,
        linger_ms=options.linger_ms,
        durability=_named(run_pb2.Durability, "DURABILITY_", "durability", options.durability),
        partitions=options.partitions,
        seed=options.seed,
        epochs=options.epochs,
        checkpoint_versions=options.checkpoint_versions,
        checkpoint_seconds=options.checkpoint_seconds,
        skips_max=options.skips_max,
        lease_ms=int(options.lease_s * 1000),
        schema=model.description.schema,
        at_least_once=options.delivery == "at_least_once",
    )
    for t in model.description.tensors:
        spec.tensors.add(
            name=t.name,
            shape=t.shape,
            dtype=run_pb2.F32 if is_float(t.dtype) else run_pb2.I64,
            rule=run_pb2.UpdateRule.Value(t.rule),
            group=optimizer.group_of(t.name, t.aliases) if t.rule == "OPT" else 0,
            aliases=t.aliases,
            source_dtype=t.dtype,
            persistent=t.persistent,
        )
    return spec


def _named(enum: Any, prefix: str, argument: str, value: str) -> Any:
    names = [n for n in enum.keys() if not n.endswith("UNSPECIFIED") and n != "CODEC_I64"]
    if prefix + value.upper() not in names:
        shown = ", ".join(n[len(prefix) :].lower() for n in names)
        raise BallastError("BAD_SPEC", f'{argument}="{value}" is none of {shown}')
    return enum.Value(prefix + value.upper())


def _check_batch_bytes(model: ModelFile, batch_rows: int) -> None:
    row_bytes = sum(c.elements * numpy_dtype(c.dtype).itemsize for c in model.description.columns)
    if row_bytes * batch_rows > BATCH_BYTES_MAX:
        fits = max(1, BATCH_BYTES_MAX // row_bytes)
        raise BallastError("BATCH_TOO_LARGE", f"batch_rows={batch_rows} rows of {row_bytes} bytes exceed the limit of {BATCH_BYTES_MAX} bytes a batch; at most {fits} rows fit")


Init = Union[None, str, Any]


def parse_init(init: str) -> tuple[str, int]:
    """ "run@version" -> (run, version); version 0 is the newest checkpoint."""
    from ballast.runs import parse_run

    name, version = parse_run(init)
    if version == "live":
        raise BallastError("BAD_SPEC", f'init="{init}": start from a checkpoint ("run" or "run@version"), live weights move')
    return name, int(version or 0)
