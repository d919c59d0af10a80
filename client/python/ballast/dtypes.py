"""Names of element types and their bytes.

One vocabulary everywhere: torch's name without "torch." ("float32", "int64", "bool"). Columns travel as little-endian elements of
that size, row-major; bool is one byte. The KServe protocol has its own names (`kserve_name`). No torch is needed here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("bool", "uint8", "int8", "int16", "int32", "int64")

_NUMPY = {
    "float16": "<f2",
    "bfloat16": "<u2",  # numpy has none: the upper half of a float32
    "float32": "<f4",
    "float64": "<f8",
    "bool": "|b1",
    "uint8": "|u1",
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
}

_KSERVE = {
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
}
_FROM_KSERVE = {v: k for k, v in _KSERVE.items()}


def dtype_name(dtype: Any) -> str:
    """The name of a torch dtype, a numpy dtype, a Python type or a name. Raises ValueError for anything that no tensor may have."""
    if dtype in (float, int, bool):
        name = {float: "float32", int: "int64", bool: "bool"}[dtype]
    elif isinstance(dtype, str):
        name = dtype
    elif str(dtype).startswith("torch."):
        name = str(dtype)
    else:
        name = np.dtype(dtype).name
    name = {"long": "int64", "float": "float32", "double": "float64", "half": "float16"}.get(name.replace("torch.", ""), name.replace("torch.", ""))
    if name not in _NUMPY:
        raise ValueError(f"{dtype!r} is not an element type of Ballast; use one of {', '.join(_NUMPY)}")
    return name


def numpy_dtype(name: str) -> np.dtype[Any]:
    """How elements lie in memory and on the wire. bfloat16 is held as its 16 bits."""
    return np.dtype(_NUMPY[name])


def is_float(name: str) -> bool:
    return name in _FLOATS


def is_integer(name: str) -> bool:
    """Integers and bool: what the servers store as int64."""
    return name in _INTEGERS


def kserve_name(name: str) -> str:
    return _KSERVE[name]


def from_kserve(datatype: str) -> str:
    """The inverse of `kserve_name`; KeyError for types that a Ballast model cannot have."""
    return _FROM_KSERVE[datatype]


def to_bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Rounds to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    nan = np.isnan(values)
    if nan.any():
        rounded = np.where(nan, (bits >> 16) | 0x40, rounded)
    bits16: npt.NDArray[np.uint16] = rounded.astype("<u2")
    return bits16


def from_bfloat16_bits(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype("<u4") << 16).view("<f4")
