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
from ballast.ngram import values


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
    limit_vocab: str = ""
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

    @property
    def prunes(self) -> bool:
        return self.has_cutoffs or bool(self.limit_vocab)


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


_MODEL: dict[str, Callable[[Any], Any]] = {
    "text": values.names,
    "parquet": values.name,
    "table": values.name,
    "column": values.name,
    "deduplicate": values.flag,
    "skip_symbols": values.flag,
    "order": values.whole(2, 8),
    "cutoffs": values.cutoffs,
    "limit_vocab": values.name,
    "discount_fallback": values.fallback,
    "vocab_pad": values.whole(0, 1 << 40),
    "interpolate_unigrams": values.flag,
    "compat": values.one_of("lmplz"),
    "shards": values.whole(1, 1 << 20),
    "tau": values.number(0, above=True),
    "levels": values.whole(1, 7),
    "partitions": values.whole(1, 1 << 14),
    "memory": values.byte_count,
    "carrier": values.one_of("subprocess", "pipe"),
    "entropy_theta": values.number(0),
    "entropy_history": values.one_of("model", "raw"),
    "arpa": values.name,
    "tables": values.name,
}
_MIX: dict[str, Callable[[Any], Any]] = {
    "dev": values.name,
    "weights": values.weights,
    "eps": values.number(0, above=True),
    "entropy_theta": values.number(0),
    "arpa": values.name,
    "tables": values.name,
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
            _value(path, "", key, doc[key], values.name)
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
    options: dict[str, Any] = {}
    for where_from, given in (("[defaults]", defaults), (where, table)):
        _check_keys(path, where_from, given, _MODEL)
        options.update({key: _value(path, where_from, key, value, _MODEL[key]) for key, value in given.items()})
    sources = [kind for kind in ("text", "parquet", "table") if kind in options]
    if len(sources) != 1:
        found = " and ".join(sources) or "none"
        raise bad(f"{path}: {where} wants one source, text, parquet or table; it has {found}")
    for key in ("parquet", "limit_vocab", "arpa", "tables"):
        if key in options:
            options[key] = _beside(path, options[key])
    options["text"] = tuple(_beside(path, text) for text in options.get("text", ()))
    model = Model(name, **options)
    if len(model.cutoffs) > model.order:
        raise bad(f"{path}: {where}: {len(model.cutoffs)} cutoffs for a model of order {model.order}")
    if model.compat and (model.source != "text" or model.deduplicate):
        raise bad(f'{path}: {where}: compat = "lmplz" needs ids in the order of the text, which only a text as it is has')
    return model


def _mix(path: str, table: Mapping[str, Any], models: tuple[Model, ...]) -> Mix:
    _check_keys(path, "[mix]", table, _MIX)
    options = {key: _value(path, "[mix]", key, value, _MIX[key]) for key, value in table.items()}
    if len(models) < 2:
        raise bad(f"{path}: [mix] wants two models or more")
    if ("dev" in options) == ("weights" in options):
        raise bad(f"{path}: [mix] wants either dev, a held-out text to learn the weights from, or weights")
    if not ("arpa" in options or "tables" in options):
        raise bad(f"{path}: [mix] wants an output: arpa or tables")
    names = [m.name for m in models]
    if "weights" in options and set(options["weights"]) != set(names):
        raise bad(f"{path}: [mix] weights name {', '.join(sorted(options['weights']))}; the models are {', '.join(names)}")
    for key in ("dev", "arpa", "tables"):
        if key in options:
            options[key] = _beside(path, options[key])
    return Mix(**options)


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
