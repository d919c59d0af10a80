"""The plan of progressive sharding: how many shards each level has, and which were too large and are opened. docs/NGRAM.md, "Levels"."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ballast.ngram import keys
from ballast.ngram.rows import BOS

SHARDS_MAX = 1 << 20
NOTHING = 0xFFFFFFFF  # No word.


@dataclass
class Level:
    shards: int
    opened: Any  # bool [shards]
    load: Any  # int64 [shards]: n-grams of order > level, also of the opened ones


@dataclass
class Plan:
    """Made by `make`, then constant. Small: it travels with the functions of the tasks."""

    order: int
    mean_load: int = 0
    levels: list[Level] = field(default_factory=list)

    def find(self, tuples: Any) -> tuple[Any, Any]:
        """(level, shard) of each tuple."""
        level = np.zeros(len(tuples), dtype=np.int32)
        shard = np.zeros(len(tuples), dtype=np.int32)
        rest = np.arange(len(tuples))
        hashes: Any = np.uint64(keys.SEED)
        for i, here in enumerate(self.levels):
            hashes = keys.xxhash64(tuples[rest, i + 1], hashes)
            found = keys.pmod(hashes, here.shards).astype(np.int32)
            goes_on = here.opened[found]
            if i > 0:  # After <s> there is only padding, which opens nothing.
                goes_on &= tuples[rest, i] != BOS
            if i + 1 == len(self.levels):
                goes_on[:] = False
            level[rest[~goes_on]] = i + 1
            shard[rest[~goes_on]] = found[~goes_on]
            rest, hashes = rest[goes_on], hashes[goes_on]
        return level, shard

    def loads(self, tuples: Any, before: Any) -> Any:
        """What sorted tuples add to the loads of the last level; `before` is the tuple in front of them, or None."""
        k = len(self.levels)
        level, shard = self.find(tuples)
        here = np.flatnonzero(level == k)
        some = tuples[here]
        in_front = tuples[here - 1]
        if len(here) and here[0] == 0:
            in_front[0] = before if before is not None else NOTHING
        begun = keys.gram_lengths(some) - np.maximum(keys.shared_words(some, in_front), k)
        begun = np.maximum(begun, 0)
        return np.bincount(shard[here], weights=begun, minlength=self.levels[-1].shards).astype(np.int64)

    def with_level(self, shards: int) -> Plan:
        level = Level(shards, np.zeros(shards, dtype=bool), np.zeros(shards, dtype=np.int64))
        return Plan(self.order, self.mean_load, [*self.levels, level])

    def shards(self) -> list[tuple[int, int, int]]:
        """(level, shard, load) of all that stay where they are. An opened shard has what ends at its level: its load is not known, and small."""
        return [
            (k + 1, s, 0 if level.opened[s] else int(level.load[s]))
            for k, level in enumerate(self.levels)
            for s in range(level.shards)
            if level.load[s] or level.opened[s] or k == 0
        ]

    def to_json(self) -> dict[str, Any]:
        levels = [
            {"shards": level.shards, "opened": np.flatnonzero(level.opened).tolist(), "load": level.load.tolist()} for level in self.levels
        ]
        return {"order": self.order, "mean_load": self.mean_load, "levels": levels}

    @staticmethod
    def from_json(doc: dict[str, Any]) -> Plan:
        plan = Plan(doc["order"], doc["mean_load"])
        for level in doc["levels"]:
            opened = np.zeros(level["shards"], dtype=bool)
            opened[level["opened"]] = True
            plan.levels.append(Level(level["shards"], opened, np.asarray(level["load"], dtype=np.int64)))
        return plan


def make(order: int, shards: int, tau: float, levels_max: int, count: Callable[[Plan], Any]) -> Plan:
    """`count(plan)` gives the loads of the plan's last level, of all tuples."""
    plan = Plan(order)
    levels_max = min(levels_max, order - 1)
    level_shards = shards
    while True:
        plan = plan.with_level(min(level_shards, SHARDS_MAX))
        level = plan.levels[-1]
        level.load = count(plan)
        if len(plan.levels) == 1:
            plan.mean_load = max(int(level.load.sum()) // shards, 1)
        if len(plan.levels) == levels_max:
            return plan
        level.opened = level.load > tau * plan.mean_load
        remainder = int(level.load[level.opened].sum())
        if remainder == 0:
            return plan
        level_shards = remainder // plan.mean_load + 1


def pack(loads: Sequence[int], parts: int) -> list[int]:
    """[item]: a part each, the largest first to the part with the least: no task waits long for another."""
    heap = [(0, part) for part in range(parts)]
    placed = [0] * len(loads)
    for item in sorted(range(len(loads)), key=lambda i: (-loads[i], i)):
        load, part = heapq.heappop(heap)
        placed[item] = part
        heapq.heappush(heap, (load + loads[item] + 1, part))
    return placed
