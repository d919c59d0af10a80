"""Initial weights for a run: a state dict becomes a file in the safetensors format, with exactly the run's tensors.

Floats become float32, integers and bools int64, as the servers store them. Values may be torch tensors or numpy arrays.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ballast.dtypes import is_float
from ballast.errors import BallastError
from ballast.model import ModelFile, Tensor


def encode_weights(state: Mapping[str, Any], model: ModelFile) -> bytes:
    """Raises BallastError(INIT_MISMATCH) naming tensors that are missing, unknown or of another shape."""
    tensors = model.description.tensors
    known = {name for t in tensors for name in (t.name, *t.aliases)}
    unknown = [name for name in state if name not in known]
    values = {t.name: _find(state, t) for t in tensors}
    missing = [t.name for t in tensors if values[t.name] is None and t.persistent]
    if unknown or missing:
        parts = [f"it lacks {_listed(missing)}"] if missing else []
        parts += [f"{model.path} has no {_listed(unknown)}"] if unknown else []
        raise BallastError("INIT_MISMATCH", f"the state dict of init= does not fit {model.path}: {' and '.join(parts)}")
    if any(v is None for v in values.values()):
        values.update(_from_archive(model, [t for t in tensors if values[t.name] is None]))
    return _encode([(t, _stored(t, values[t.name])) for t in tensors])


def _find(state: Mapping[str, Any], tensor: Tensor) -> Any:
    return next((state[n] for n in (tensor.name, *tensor.aliases) if n in state), None)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f'"{n}"' for n in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _from_archive(model: ModelFile, wanted: Sequence[Tensor]) -> dict[str, Any]:
    """Buffers that are no part of a state dict keep the values of the model file."""
    try:
        import torch
    except ImportError:
        names = _listed([t.name for t in wanted])
        raise BallastError("INIT_MISMATCH", f"init= needs torch to read the non-persistent buffers {names} from {model.path}; or give them in the dict") from None
    buffers = dict(torch.jit.load(model.path, map_location="cpu").named_buffers())
    return {t.name: buffers[t.name] for t in wanted}


def _stored(tensor: Tensor, value: Any) -> npt.NDArray[Any]:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if is_float(tensor.dtype) else value.long()).numpy()
    array = np.asarray(value)
    if array.shape != tensor.shape:
        raise BallastError("INIT_MISMATCH", f'init=: "{tensor.name}" has shape {list(array.shape)}, the model expects {list(tensor.shape)}')
    return np.asarray(array, dtype="<f4" if is_float(tensor.dtype) else "<i8", order="C")


def _encode(tensors: Sequence[tuple[Tensor, npt.NDArray[Any]]]) -> bytes:
    header: dict[str, Any] = {}
    end = 0
    for tensor, array in tensors:
        begin, end = end, end + array.nbytes
        header[tensor.name] = {"dtype": "F32" if array.dtype.kind == "f" else "I64", "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(a.tobytes() for _, a in tensors)])
