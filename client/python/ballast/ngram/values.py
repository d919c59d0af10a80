"""What a value of the configuration may be. Each check gives what is stored, or raises ValueError with what it wants."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def whole(least: int, most: int) -> Callable[[Any], Any]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return check


def number(least: float, above: bool = False) -> Callable[[Any], Any]:
    def check(value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not (value > least if above else value >= least):
            raise ValueError(f"a number {'over' if above else 'from'} {least:g}" + ("" if above else " on"))
        return float(value)

    return check


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text in quotes")
    return value


def one_of(*known: str) -> Callable[[Any], Any]:
    def check(value: Any) -> str:
        if value not in known:
            raise ValueError("one of " + ", ".join(f'"{k}"' for k in known))
        return str(value)

    return check


def names(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError("a path, or a list of paths")
    return tuple(values)


def cutoffs(value: Any) -> tuple[int, ...]:
    count = whole(0, 1 << 40)
    if not isinstance(value, list) or not value:
        raise ValueError("a list of whole numbers, as [0, 0, 1]")
    values = tuple(count(v) for v in value)
    if list(values) != sorted(values):
        raise ValueError("thresholds that do not decrease with the order, or a kept n-gram would lose its suffix")
    return values


def fallback(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= 3:
        raise ValueError("one to three numbers, as [0.5, 1, 1.5]")
    return tuple(number(0)(v) for v in values)


def byte_count(value: Any) -> int:
    found = re.fullmatch(r"([1-9]\d*)([KMG]?)", str(value))
    if not found or isinstance(value, bool):
        raise ValueError('bytes, as "256M" or "2G"')
    return int(found[1]) * _UNITS[found[2]]


def weights(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not value:
        raise ValueError("a weight for each model, as { a = 0.7, b = 0.3 }")
    found = {model: number(0)(weight) for model, weight in value.items()}
    if abs(sum(found.values()) - 1) > 1e-6:
        raise ValueError("weights that sum to 1")
    return found
