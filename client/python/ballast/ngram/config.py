"""The configuration of a training, a TOML file: docs/NGRAM.md, "Configuration". Strict: what is not known is an error that names the nearest.

    [model.rfc]
    text = "rfc.txt"
    order = 5
    arpa = "rfc.arpa"
"""

from __future__ import annotations

import difflib
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ballast.errors import BallastError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def bad(message: str) -> BallastError:
    return BallastError("BAD_CONFIG", message)


@dataclass(frozen=True)
class Model:
    name: str
    # Source: one of the first three.
    text: tuple[str, ...] = ()
    parquet: str = ""
    table: str = ""
    column: str = "text"
    deduplicate: bool = False
    skip_symbols: bool = False
    # Smoothing.
    order: int = 5
    cutoffs: tuple[int, ...] = ()
    discount_fallback: tuple[float, ...] = ()
    vocab_pad: Optional[int] = None
    interpolate_unigrams: bool = True
    compat: str = ""
    # Shards.
    shards: int = 0
    tau: float = 2.0
    levels: int = 3
    partitions: int = 0
    memory: int = 256 << 20
    carrier: str = "subprocess"
    # Afterwards.
    entropy_theta: Optional[float] = None
    entropy_history: str = "model"
    arpa: str = ""
    tables: str = ""

    @property
    def source(self) -> str:
        return next(kind for kind in ("text", "parquet", "table") if getattr(self, kind))

    @property
    def has_cutoffs(self) -> bool:
        return any(self.cutoffs)


@dataclass(frozen=True)
class Mix:
    dev: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    eps: float = 1e-6
    entropy_theta: Optional[float] = None
    arpa: str = ""
    tables: str = ""


@dataclass(frozen=True)
class Config:
    path: str
    work: str
    models: tuple[Model, ...]
    mix: Optional[Mix] = None
    estimator: str = ""
    report: str = ""
    spark: Mapping[str, str] = field(default_factory=dict)


# ---- values: each gives what is stored, or says what it wants -------------------------------------------------------------------------


def _whole(least: int, most: int) -> Callable[[Any], Any]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def _number(least: float, above: bool = False) -> Callable[[Any], Any]:
    def check(value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not (value > least if above else value >= least):
            raise ValueError(f"a number {'over' if above else 'from'} {least:g}" + ("" if above else " on"))
        return float(value)

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text in quotes")
    return value


def _one_of(*known: str) -> Callable[[Any], Any]:
    def check(value: Any) -> str:
        if value not in known:
            raise ValueError("one of " + ", ".join(f'"{k}"' for k in known))
        return str(value)

    return check


def _names(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError("a path, or a list of paths")
    return tuple(values)


def _cutoffs(value: Any) -> tuple[int, ...]:
    whole = _whole(0, 1 << 40)
    if not isinstance(value, list) or not value:
        raise ValueError("a list of whole numbers, as [0, 0, 1]")
    values = tuple(whole(v) for v in value)
    if list(values) != sorted(values):
        raise ValueError("thresholds that do not decrease with the order, or a kept n-gram would lose its suffix")
    return values


def _fallback(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= 3:
        raise ValueError("one to three numbers, as [0.5, 1, 1.5]")
    return tuple(_number(0)(v) for v in values)


def _bytes(value: Any) -> int:
    found = re.fullmatch(r"([1-9]\d*)([KMG]?)", str(value))
    if not found or isinstance(value, bool):
        raise ValueError('bytes, as "256M" or "2G"')
    return int(found[1]) * _UNITS[found[2]]


def _weights(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not value:
        raise ValueError("a weight for each model, as { a = 0.7, b = 0.3 }")
    weights = {name: _number(0)(weight) for name, weight in value.items()}
    if abs(sum(weights.values()) - 1) > 1e-6:
        raise ValueError("weights that sum to 1")
    return weights


_MODEL: dict[str, Callable[[Any], Any]] = {
    "text": _names,
    "parquet": _name,
    "table": _name,
    "column": _name,
    "deduplicate": _flag,
    "skip_symbols": _flag,
    "order": _whole(2, 8),
    "cutoffs": _cutoffs,
    "discount_fallback": _fallback,
    "vocab_pad": _whole(0, 1 << 40),
    "interpolate_unigrams": _flag,
    "compat": _one_of("lmplz"),
    "shards": _whole(1, 1 << 20),
    "tau": _number(0, above=True),
    "levels": _whole(1, 7),
    "partitions": _whole(1, 1 << 14),
    "memory": _bytes,
    "carrier": _one_of("subprocess", "pipe"),
    "entropy_theta": _number(0),
    "entropy_history": _one_of("model", "raw"),
    "arpa": _name,
    "tables": _name,
}
_MIX: dict[str, Callable[[Any], Any]] = {
    "dev": _name,
    "weights": _weights,
    "eps": _number(0, above=True),
    "entropy_theta": _number(0),
    "arpa": _name,
    "tables": _name,
}
_TOP = ("work", "estimator", "report", "spark", "defaults", "model", "mix")


def load(path: str) -> Config:
    """Raises BallastError(BAD_CONFIG) that names file, table and key."""
    import tomllib

    try:
        with open(path, "rb") as file:
            doc = tomllib.load(file)
    except OSError as e:
        raise bad(f"cannot read {path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise bad(f"{path} is no TOML: {e}") from e
    return parse(doc, path)


def parse(doc: Mapping[str, Any], path: str) -> Config:
    _check_keys(path, "", doc, _TOP)
    for name in ("spark", "defaults", "model", "mix"):
        if name in doc and not isinstance(doc[name], dict):
            raise bad(f"{path}: {name} is a table: [{name}]")
    models = tuple(_model(path, name, table, doc.get("defaults", {})) for name, table in doc.get("model", {}).items())
    if not models:
        raise bad(f"{path}: no model; want at least one [model.NAME] with its source")
    mix = _mix(path, doc["mix"], models) if "mix" in doc else None
    if mix is None and len(models) > 1 and not all(m.arpa or m.tables for m in models):
        raise bad(f"{path}: several models and no [mix]: then each wants an output of its own (arpa or tables)")
    if mix is None and not any(m.arpa or m.tables for m in models):
        raise bad(f"{path}: no output; want arpa or tables in [model.{models[0].name}]")
    for key in ("work", "estimator", "report"):
        if key in doc:
            _value(path, "", key, doc[key], _name)
    spark = {}
    for key, value in doc.get("spark", {}).items():
        if not key.startswith("spark.") or isinstance(value, (dict, list)):
            raise bad(f'{path}: [spark] holds settings of Spark, as "spark.executor.memory" = "4g"; not {key}')
        spark[key] = str(value).lower() if isinstance(value, bool) else str(value)
    work = doc.get("work", pathlib.Path(path).stem + ".work")
    report = _beside(path, doc["report"]) if "report" in doc else ""
    return Config(path, _beside(path, work), models, mix, doc.get("estimator", ""), report, spark)


def _model(path: str, name: str, table: Any, defaults: Mapping[str, Any]) -> Model:
    where = f"[model.{name}]"
    if not isinstance(table, dict):
        raise bad(f"{path}: model.{name} is a table: {where}")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise bad(f"{path}: {where}: a name is made of letters, digits, - and _")
    values: dict[str, Any] = {}
    for where_from, given in (("[defaults]", defaults), (where, table)):
        _check_keys(path, where_from, given, _MODEL)
        values.update({key: _value(path, where_from, key, value, _MODEL[key]) for key, value in given.items()})
    sources = [kind for kind in ("text", "parquet", "table") if kind in values]
    if len(sources) != 1:
        found = " and ".join(sources) or "none"
        raise bad(f"{path}: {where} wants one source, text, parquet or table; it has {found}")
    for key in ("parquet", "arpa", "tables"):
        if key in values:
            values[key] = _beside(path, values[key])
    values["text"] = tuple(_beside(path, text) for text in values.get("text", ()))
    model = Model(name, **values)
    if len(model.cutoffs) > model.order:
        raise bad(f"{path}: {where}: {len(model.cutoffs)} cutoffs for a model of order {model.order}")
    if model.compat and (model.source != "text" or model.deduplicate):
        raise bad(f'{path}: {where}: compat = "lmplz" needs ids in the order of the text, which only a text as it is has')
    return model


def _mix(path: str, table: Mapping[str, Any], models: tuple[Model, ...]) -> Mix:
    _check_keys(path, "[mix]", table, _MIX)
    values = {key: _value(path, "[mix]", key, value, _MIX[key]) for key, value in table.items()}
    if len(models) < 2:
        raise bad(f"{path}: [mix] wants two models or more")
    if ("dev" in values) == ("weights" in values):
        raise bad(f"{path}: [mix] wants either dev, a held-out text to learn the weights from, or weights")
    if not ("arpa" in values or "tables" in values):
        raise bad(f"{path}: [mix] wants an output: arpa or tables")
    names = [m.name for m in models]
    if "weights" in values and set(values["weights"]) != set(names):
        raise bad(f"{path}: [mix] weights name {', '.join(sorted(values['weights']))}; the models are {', '.join(names)}")
    for key in ("dev", "arpa", "tables"):
        if key in values:
            values[key] = _beside(path, values[key])
    return Mix(**values)


def _value(path: str, where: str, key: str, value: Any, check: Callable[[Any], Any]) -> Any:
    try:
        return check(value)
    except ValueError as e:
        raise bad(f"{path}: {where} {key} = {value!r}: want {e}".replace("  ", " ")) from None


def _check_keys(path: str, where: str, table: Mapping[str, Any], known: Any) -> None:
    for key in table:
        if key not in known:
            nearest = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
            hint = f'; did you mean "{nearest[0]}"?' if nearest else f"; known are {', '.join(known)}"
            raise bad(f'{path}: {where or "the file"} has no key "{key}"{hint}')


def _beside(path: str, name: str) -> str:
    """Paths are relative to the configuration file; addresses of other file systems stay what they are."""
    if re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]*://", name):
        return name
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(name)))
