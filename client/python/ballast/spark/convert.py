"""Arrow columns to dense little-endian arrays [rows, shape...], with a check of every value's place.

Runs inside Spark tasks. A value that does not fit raises RowFault with the index of the first such row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ballast.dtypes import is_float, numpy_dtype, to_bfloat16_bits
from ballast.model import Column


class RowFault(Exception):
    """Row `row` of the array holds `found`."""

    def __init__(self, reason: str, row: int, found: str) -> None:
        super().__init__(reason, row, found)
        self.reason, self.row, self.found = reason, row, found


def to_dense(array: pa.Array, target: Column, nested: bool) -> npt.NDArray[Any]:
    """[len(array), *target.shape], contiguous, of numpy_dtype(target.dtype). Raises RowFault."""
    rows = len(array)
    width = 1  # elements of `array` for each row
    lengths = target.shape if nested else ((target.elements,) if target.shape else ())
    for length in lengths:
        _check_nulls(array, width, "null" if width == 1 else "an array with null inside")
        array = _flatten(array, length, width)
        width *= length
    _check_nulls(array, width, "null" if width == 1 and not lengths else "an array with null inside")
    return _cast(array, target, width).reshape(rows, *target.shape)


def _check_nulls(array: pa.Array, width: int, found: str) -> None:
    if array.null_count:
        first = int(np.argmax(np.asarray(array.is_null())))
        raise RowFault("NULL_VALUE", first // width, found)


def _flatten(array: pa.Array, length: int, width: int) -> pa.Array:
    sizes = np.asarray(pc.list_value_length(array))
    wrong = sizes != length
    if wrong.any():
        first = int(np.argmax(wrong))
        raise RowFault("SHAPE_MISMATCH", first // width, f"an array of {int(sizes[first])} elements")
    return array.flatten()


def _cast(array: pa.Array, target: Column, width: int) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    wanted = numpy_dtype(target.dtype)
    if target.dtype == "bfloat16":
        return to_bfloat16_bits(values.astype("<f4"))
    if not is_float(target.dtype) and values.dtype.kind in "iu":
        low, high = (0, 1) if target.dtype == "bool" else (np.iinfo(wanted).min, np.iinfo(wanted).max)
        if values.size and (values.min() < low or values.max() > high):
            first = int(np.argmax((values < low) | (values > high)))
            raise RowFault("VALUE_OUT_OF_RANGE", first // width, f"the value {values[first]}, outside {low} to {high}")
    return np.ascontiguousarray(values, dtype=wanted)
