"""The description `ballast.json` inside an exported model, and how to read it without torch.

It is the contract between `ballast.export` (writes it), the workers (read it beside the TorchScript code) and this client (checks
data frames against it, and makes the run's tensor list from it). Format 1:

    {"format": 1,
     "inputs":  [{"name": "tokens", "dtype": "int32", "shape": [32]}],      positional arguments of forward, rows first; shape without rows
     "label":   {"name": "label", "dtype": "int64", "shape": []} | null,
     "outputs": [{"name": "logits", "dtype": "float32", "shape": [58]}],    what forward returns: one tensor, a tuple, or a dict by name
     "loss":    "cross_entropy" | "bce_with_logits" | "mse" | "method:<name>",
     "tensors": [{"name": "emb.weight", "dtype": "float32", "shape": [16384, 64],   first state-dict name; dtype is torch's own
                  "rule": "OPT" | "MEAN" | "SET", "aliases": ["head.weight"],       further state-dict names of the same tensor
                  "persistent": true, "requires_grad": true}]}                      order of the state dict

What the losses mean (one number per row, [rows]; the trainer averages or sums them):
    cross_entropy     F.cross_entropy(outputs[0], label as int64, reduction="none"), further dimensions averaged
    bce_with_logits   F.binary_cross_entropy_with_logits(outputs[0], label as outputs[0]'s type and shape, "none"), averaged over all but rows
    mse               (outputs[0] - label as outputs[0]'s type and shape)^2, averaged over all but rows
    method:<name>     module.<name>(*inputs, label), or module.<name>(*inputs) when label is null; forward is not called before it
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from ballast.errors import BallastError

FORMAT = 1
BUILT_IN_LOSSES = ("cross_entropy", "bce_with_logits", "mse")


@dataclass(frozen=True)
class Column:
    """One tensor that travels: its name, element type and the shape of one row."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Elements of one row."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        dims = "x".join(str(d) for d in self.shape)
        return f"{self.dtype}[{dims}]" if self.shape else self.dtype


@dataclass(frozen=True)
class Tensor:
    """One parameter or buffer of the module."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    rule: str
    aliases: tuple[str, ...]
    persistent: bool
    requires_grad: bool


@dataclass(frozen=True)
class ModelDescription:
    inputs: tuple[Column, ...]
    label: Optional[Column]
    outputs: tuple[Column, ...]
    loss: str
    tensors: tuple[Tensor, ...]
    text: str = field(repr=False)  # the JSON as stored, byte for byte

    @property
    def columns(self) -> tuple[Column, ...]:
        """What a feed carries: the inputs, then the label."""
        return self.inputs + ((self.label,) if self.label else ())

    @property
    def schema(self) -> str:
        """RunSpec.schema, e.g. "tokens:int32[32],label:int64"."""
        return ",".join(f"{c.name}:{c}" for c in self.columns)


@dataclass(frozen=True)
class ModelFile:
    path: str
    sha256: str
    description: ModelDescription


def parse_description(text: str) -> ModelDescription:
    """Raises BallastError(MODEL_INVALID) when the text is not a description that this client understands."""
    try:
        doc = json.loads(text)
        if doc["format"] != FORMAT:
            raise BallastError("MODEL_INVALID", f"the model's description has format {doc['format']}, this client reads format {FORMAT}: export it again")
        return ModelDescription(
            inputs=tuple(_column(c) for c in doc["inputs"]),
            label=_column(doc["label"]) if doc["label"] else None,
            outputs=tuple(_column(c) for c in doc["outputs"]),
            loss=doc["loss"],
            tensors=tuple(_tensor(t) for t in doc["tensors"]),
            text=text,
        )
    except (KeyError, TypeError, ValueError) as e:
        raise BallastError("MODEL_INVALID", f"the model's description cannot be read: {e!r}") from e


def read_model(path: Union[str, "os.PathLike[str]"]) -> ModelFile:
    """Opens an archive written by `ballast.export`. Raises BallastError(MODEL_INVALID) for anything else."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as f:
            digest = _sha256(f)
        with zipfile.ZipFile(path) as archive:
            entries = [n for n in archive.namelist() if n.endswith("/extra/ballast.json")]
            if len(entries) != 1:
                raise BallastError("MODEL_INVALID", f"{path} is not a model written by ballast.export: it holds no ballast.json")
            text = archive.read(entries[0]).decode("utf-8")
    except FileNotFoundError:
        raise BallastError("MODEL_INVALID", f"there is no model file {path}") from None
    except (OSError, zipfile.BadZipFile) as e:
        raise BallastError("MODEL_INVALID", f"{path} is not a model written by ballast.export: {e}") from e
    return ModelFile(path, digest, parse_description(text))


def same_program(one: bytes, other: bytes) -> bool:
    """Do two archives hold the same module, whatever its weights are? A second export of one program differs in the order of some lines of
    its code (TorchScript keeps constants in a set), so bytes cannot be compared."""
    try:
        return _program(one) == _program(other)
    except (KeyError, zipfile.BadZipFile):
        return False


def _program(content: bytes) -> dict[str, Any]:
    program: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.namelist():
            name = entry.partition("/")[2]  # the first part is the file's name
            if name.startswith("code/") and name.endswith(".py"):
                program[name] = sorted(archive.read(entry).splitlines())
            elif name in ("data.pkl", "constants.pkl", "extra/ballast.json"):
                program[name] = archive.read(entry)
    return program


def _column(doc: dict[str, Any]) -> Column:
    return Column(str(doc["name"]), str(doc["dtype"]), tuple(int(d) for d in doc["shape"]))


def _tensor(doc: dict[str, Any]) -> Tensor:
    return Tensor(
        name=str(doc["name"]),
        dtype=str(doc["dtype"]),
        shape=tuple(int(d) for d in doc["shape"]),
        rule=str(doc["rule"]),
        aliases=tuple(str(a) for a in doc["aliases"]),
        persistent=bool(doc["persistent"]),
        requires_grad=bool(doc["requires_grad"]),
    )


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
