"""Which column of a data frame feeds which tensor of the model, checked against df.schema before anything starts.

Spark's types are looked at by name only, so that PySpark 3.5, 4.x and Connect are the same here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from ballast.dtypes import is_float
from ballast.errors import BallastError
from ballast.model import Column, ModelDescription

Features = Union[str, Sequence[str], Mapping[str, str]]

_INTEGERS = {"tinyint", "smallint", "int", "bigint"}
_FLOATS = {"float", "double"}
_IDS = _INTEGERS | {"string", "binary", "date", "timestamp", "timestamp_ntz", "boolean"}


@dataclass(frozen=True)
class Source:
    """A tensor of the model and the data frame's column that it is filled from."""

    target: Column
    column: str
    nested: bool  # array<array<...>> as deep as the shape; else one flat array (or a scalar)


def match_inputs(inputs: Sequence[Column], features: Features, what: str = "features") -> dict[str, str]:
    """{input: column}. A list is matched by position."""
    if isinstance(features, Mapping):
        given = {str(k): str(v) for k, v in features.items()}
    else:
        names = [features] if isinstance(features, str) else list(features)
        if len(names) != len(inputs):
            wanted = ", ".join(c.name for c in inputs)
            raise BallastError("COLUMN_MISSING", f"{what}={names} names {len(names)} columns, the model has {len(inputs)} inputs: {wanted}")
        given = {c.name: n for c, n in zip(inputs, names)}
    known = [c.name for c in inputs]
    for name in given:
        if name not in known:
            raise BallastError("COLUMN_MISSING", f'{what}=: the model has no input "{name}"; its inputs are {", ".join(known)}')
    for name in known:
        if name not in given:
            raise BallastError("COLUMN_MISSING", f'{what}=: no column is given for the model\'s input "{name}"')
    return given


def training_sources(schema: Any, model: ModelDescription, features: Features, label: Optional[str]) -> list[Source]:
    """Sources in the order of RunSpec.schema: the inputs, then the label."""
    columns = match_inputs(model.inputs, features)
    if model.label and label is None:
        raise BallastError("COLUMN_MISSING", f'the model was exported with a label ("{model.label.name}", {model.label}): name its column with label=')
    if label is not None and not model.label:
        raise BallastError("COLUMN_MISSING", f'label="{label}" was given, but the model was exported without a label')
    if model.label and label is not None:
        columns[model.label.name] = label
    return [source_of(schema, target, columns[target.name]) for target in model.columns]


def source_of(schema: Any, target: Column, column: str) -> Source:
    """Raises BallastError(COLUMN_MISSING or TYPE_MISMATCH) that names column, expected and found."""
    field = _field(schema, column)
    found = field.dataType
    if target.shape and found.typeName() == "array":
        depth, element = 0, found
        while element.typeName() == "array":
            depth, element = depth + 1, element.elementType
        if depth in (1, len(target.shape)) and _fits(element.simpleString(), target.dtype):
            return Source(target, column, nested=depth > 1)
    elif not target.shape and _fits(found.simpleString(), target.dtype):
        return Source(target, column, nested=False)
    raise _mismatch(column, str(target), found)


def check_id(schema: Any, column: str) -> None:
    found = _field(schema, column).dataType
    if found.simpleString() not in _IDS and not found.simpleString().startswith("decimal"):
        raise _mismatch(column, "an id: an integer, string, binary, date, timestamp or decimal column", found)


def quoted(column: str) -> str:
    """The column's name for F.col: names with dots mean themselves, not fields of structs."""
    return "`" + column.replace("`", "``") + "`"


def _field(schema: Any, column: str) -> Any:
    for field in schema.fields:
        if field.name == column:
            return field
    raise BallastError("COLUMN_MISSING", f'there is no column "{column}"; the data frame has {", ".join(schema.names)}', {"column": column})


def _fits(spark: str, dtype: str) -> bool:
    """May a column of this Spark type fill a tensor of this dtype? Integers into integers (values are checked row by row), numbers into floats."""
    if is_float(dtype):
        return spark in _FLOATS or spark in _INTEGERS or spark == "boolean"
    return spark in _INTEGERS or spark == "boolean"


def _mismatch(column: str, expected: str, found: Any) -> BallastError:
    hint = ""
    if found.typeName() in ("udt", "vectorudt", "vector") or "vector" in found.simpleString():
        hint = '; convert it first: pyspark.ml.functions.vector_to_array(col, "float32")'
    elif found.simpleString().startswith("decimal"):
        hint = '; cast it first: .cast("float")'
    facts = {"column": column, "expected": expected, "found": found.simpleString()}
    return BallastError("TYPE_MISMATCH", f'column "{column}" is {found.simpleString()}, the model expects {expected}{hint}; nothing was trained', facts)
