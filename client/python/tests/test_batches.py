"""Rows to batches: the same rows give the same batches however Arrow cuts them; what does not fit is named."""

from __future__ import annotations

import datetime
import struct

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from ballast.dtypes import from_bfloat16_bits, to_bfloat16_bits
from ballast.errors import BallastError
from ballast.fingerprint import fingerprint
from ballast.model import Column
from ballast.spark.batches import Batch, Packer
from ballast.spark.columns import Source
from ballast.spark.convert import RowFault, to_dense


def pack(columns: dict[str, pa.Array], ids: pa.Array, sources: list[Source], piece: int, batch_rows: int = 4) -> tuple[list[Batch], Packer]:
    whole = pa.RecordBatch.from_arrays([*columns.values(), ids], names=[*columns, "id"])
    packer = Packer(sources, batch_rows, True, 3)
    return list(packer.batches(whole.slice(i, piece) for i in range(0, len(ids), piece))), packer


@pytest.mark.parametrize("ids", [pa.array(range(22)), pa.array([f"n{i}é" for i in range(22)]), pa.array([b"%d" % i for i in range(22)])])
def test_batches_do_not_depend_on_how_arrow_cuts_the_rows(ids: pa.Array) -> None:
    x = pa.array([[i, i + 1] for i in range(22)], pa.list_(pa.int32()))
    sources = [Source(Column("x", "int32", (2,)), "x", False)]
    reference, packer = pack({"c0": x}, ids, sources, 22)
    assert [b.rows for b in reference] == [4, 4, 4, 4, 3, 3]
    assert (packer.batch_count, packer.row_count) == (6, 22)
    for piece in (1, 3, 4, 5, 21):
        assert pack({"c0": x}, ids, sources, piece)[0] == reference


@pytest.mark.parametrize("rows,sizes", [(1, [1]), (4, [4]), (5, [3, 2]), (7, [4, 3]), (8, [4, 4]), (9, [4, 3, 2])])
def test_no_batch_is_tiny_because_it_is_the_last(rows: int, sizes: list[int]) -> None:
    sources = [Source(Column("x", "float32", ()), "x", False)]
    for piece in (1, 3, rows):
        batches, packer = pack({"c0": pa.array([0.5] * rows)}, pa.array(range(rows)), sources, piece)
        assert [b.rows for b in batches] == sizes and packer.row_count == rows
        assert [b.first_row_id for b in batches] == [str(sum(sizes[:i])) for i in range(len(sizes))]


def test_ids_and_earlier_rows_are_in_the_fingerprint() -> None:
    x = pa.array([1.0] * 8)
    sources = [Source(Column("x", "float32", ()), "x", False)]
    one, _ = pack({"c0": x}, pa.array([1, 2, 3, 4, 5, 6, 7, 8]), sources, 8)
    swapped, _ = pack({"c0": x}, pa.array([2, 1, 3, 4, 5, 6, 7, 8]), sources, 8)
    assert one[0].columns == swapped[0].columns
    assert one[0].fingerprint != swapped[0].fingerprint
    assert one[1].fingerprint != swapped[1].fingerprint  # the chain


def test_fingerprint_is_as_documented() -> None:
    data = np.arange(6, dtype="<i4").tobytes()
    ids = struct.pack("<3q", 7, 8, 9)
    text = b"x\0int32\0" + struct.pack("<3Q", 2, 3, 2) + data + struct.pack("<Q", xxhash.xxh3_64_intdigest(ids))
    assert fingerprint([Column("x", "int32", (2,))], [data], 3, xxhash.xxh3_64_intdigest(ids), 5) == xxhash.xxh3_64_intdigest(text, seed=5)


def test_duplicate_ids_are_counted_across_pieces() -> None:
    sources = [Source(Column("x", "float32", ()), "x", False)]
    _, packer = pack({"c0": pa.array([1.0] * 6)}, pa.array([1, 2, 2, 2, 3, 3]), sources, 3)
    assert packer.duplicate_ids == 3


def test_wrong_row_is_named() -> None:
    x = pa.array([[1, 2], [1, 2], [1, 2, 3]], pa.list_(pa.int64()))
    with pytest.raises(BallastError) as error:
        pack({"c0": x}, pa.array(["a", "b", "c"]), [Source(Column("dense", "float32", (2,)), "features", False)], 3)
    assert error.value.reason == "SHAPE_MISMATCH"
    assert error.value.metadata == {"column": "features", "expected": "float32[2]", "found": "an array of 3 elements", "partition": "3", "row_id": "c"}


def dense(values: object, kind: pa.DataType, target: Column, nested: bool = False) -> np.ndarray:
    return to_dense(pa.array(values, kind), target, nested)


def test_values_become_the_models_type() -> None:
    assert dense([1, 2], pa.int64(), Column("x", "int32", ())).dtype == np.dtype("<i4")
    assert dense([1, 0], pa.int32(), Column("x", "float32", ())).tolist() == [1.0, 0.0]
    assert dense([True, False], pa.bool_(), Column("x", "int64", ())).tolist() == [1, 0]
    assert dense([[1.5, 2.5]], pa.list_(pa.float64()), Column("x", "float32", (2,))).tolist() == [[1.5, 2.5]]
    nested = dense([[[1, 2, 3], [4, 5, 6]]], pa.list_(pa.list_(pa.int64())), Column("x", "int64", (2, 3)), nested=True)
    flat = dense([[1, 2, 3, 4, 5, 6]], pa.list_(pa.int64()), Column("x", "int64", (2, 3)))
    assert nested.shape == (1, 2, 3) and (nested == flat).all()


def test_slices_keep_their_rows() -> None:
    array = pa.array([[i, i] for i in range(10)], pa.list_(pa.int64())).slice(4, 3)
    assert to_dense(array, Column("x", "int64", (2,)), False)[:, 0].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("values", "kind", "target", "nested", "reason", "row"),
    [
        ([1, None], pa.int64(), Column("x", "int64", ()), False, "NULL_VALUE", 1),
        ([[1, 2], None], pa.list_(pa.int64()), Column("x", "int64", (2,)), False, "NULL_VALUE", 1),
        ([[1, 2], [1, 2], [3, None]], pa.list_(pa.int64()), Column("x", "int64", (2,)), False, "NULL_VALUE", 2),
        ([1, 2, 1 << 40], pa.int64(), Column("x", "int32", ()), False, "VALUE_OUT_OF_RANGE", 2),
        ([[0, 0], [0, 300]], pa.list_(pa.int32()), Column("x", "uint8", (2,)), False, "VALUE_OUT_OF_RANGE", 1),
        ([2], pa.int32(), Column("x", "bool", ()), False, "VALUE_OUT_OF_RANGE", 0),
        ([[[1], [2]], [[1], [2, 3]]], pa.list_(pa.list_(pa.int32())), Column("x", "int32", (2, 1)), True, "SHAPE_MISMATCH", 1),
    ],
)
def test_row_of_the_first_misfit_is_told(values: object, kind: pa.DataType, target: Column, nested: bool, reason: str, row: int) -> None:
    with pytest.raises(RowFault) as fault:
        dense(values, kind, target, nested)
    assert (fault.value.reason, fault.value.row) == (reason, row)


def test_null_id_is_refused() -> None:
    with pytest.raises(BallastError, match="id column holds null"):
        pack({"c0": pa.array([1.0, 2.0])}, pa.array([1, None]), [Source(Column("x", "float32", ()), "x", False)], 2)


def test_dates_are_ids_too() -> None:
    days = pa.array([datetime.date(2026, 1, d) for d in (1, 2)])
    batches, _ = pack({"c0": pa.array([1.0, 2.0])}, days, [Source(Column("x", "float32", ()), "x", False)], 2)
    assert batches[0].first_row_id == "2026-01-01"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_instants_are_the_same_ids_in_every_time_zone(zone: str) -> None:
    sources = [Source(Column("x", "float32", ()), "x", False)]
    instants = pa.array([1_700_000_000_000_000, 1_700_000_000_000_001])
    there, utc = (pack({"c0": pa.array([1.0, 2.0])}, instants.cast(pa.timestamp("us", tz=z)), sources, 2)[0] for z in (zone, "UTC"))
    assert there == utc and utc[0].first_row_id.startswith("2023-11-14 22:13:20")


def test_bfloat16_rounds_to_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    values = np.array([1.0, 1.00390625, 1.01171875, -3.14159, 1e-40, np.inf, np.nan], dtype="f4")
    bits = to_bfloat16_bits(values)
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(from_bfloat16_bits(bits), expected)
