"""What a round of a crash campaign is made of: the settings of its cluster and the deaths of its processes, chosen by a seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Optional

from tests.crash import points

# Passed only when the log of a server is cut by several segments at once, and a segment begins with each life.
CUTS = ("segment-recycle", "segment-recycled", "segment-delete", "segment-deleted")

MALLOC = "malloc@"  # a plan: this allocation of the life fails


@dataclass(frozen=True)
class Settings:
    codec: str = "int8"
    staleness: Optional[int] = 0
    model: str = "mlp"  # or "counter"
    checkpoints: bool = True
    whole_log: bool = True
    side_runs: bool = True
    durability: str = "log"
    rollbacks: bool = False  # the run that is fed goes back to its checkpoints now and then, and each side run once
    spark: bool = False  # fed by a real Spark, not by threads

    @staticmethod
    def random(generator: random.Random) -> Settings:
        checkpoints = generator.random() < 0.8
        return Settings(
            codec=generator.choice(["int8", "fp32"]),
            staleness=generator.choice([0, 1, None]),
            model=generator.choice(["counter", "mlp"]),
            checkpoints=checkpoints,
            whole_log=not checkpoints or generator.random() < 0.5,
            rollbacks=checkpoints and generator.random() < 0.6,
        )

    @staticmethod
    def volatile(generator: random.Random) -> Settings:
        """Durability "checkpoint". A log that lacks the contributions cannot be replayed; the counter model shows each row."""
        return Settings(
            codec=generator.choice(["int8", "fp32"]), staleness=generator.choice([0, 1, None]), model="counter", whole_log=False, durability="checkpoint",
            rollbacks=generator.random() < 0.5,
        )  # fmt: skip

    @staticmethod
    def with_spark(generator: random.Random) -> Settings:
        return Settings(codec=generator.choice(["int8", "fp32"]), staleness=generator.choice([0, 1, None]), model="counter", spark=True)


@dataclass(frozen=True)
class Kill:
    """Of one process: kill -9, or a plan for a point. Then plans for its next starts, each of which should end that life too."""

    process: str
    point: str = ""  # "": kill -9
    action: str = "kill"  # or "exit", "error"
    nth: int = 1
    nested: tuple[str, ...] = ()  # plans, "point=action@nth" or MALLOC and a number
    also: str = ""  # a process that is killed (-9) while the first is dead
    rollback: bool = False  # the run that is fed is told to go back, just before


def random_kills(generator: random.Random, count: int, settings: Settings, fired: Counter[str]) -> list[Kill]:
    """Most deaths are at points: first at those that fired least so far (`fired`), at random among equals."""
    table = [p for p in points.table() if settings.checkpoints or p.phase != "Checkpoint"]
    generator.shuffle(table)
    table.sort(key=lambda p: fired[p.name])
    at_start = [p for p in table if p.phase == "Start"]
    phases = ("Step", "Checkpoint", *(("Run", "Epoch") if settings.side_runs else ()), *(("Rollback",) if settings.rollbacks else ()))
    others = [p for p in table if p.phase in phases and not p.name.startswith("identity-") and not (settings.whole_log and p.name in CUTS)]
    starts = _Turns(at_start)
    if settings.durability == "checkpoint":  # then a start of a server is followed by a rollback
        starts = _Turns([*at_start[:8], *(p for p in table if p.name.startswith("rollback-")), *at_start[8:]])
    kills: list[Kill] = []
    deaths = 0
    while deaths < count:
        server = generator.choice(["server-0", "server-1"])
        also = generator.choice(["server-0", "server-1", "worker-0", "worker-1"]) if generator.random() < 0.15 else ""
        nests = generator.choice([0, 0, 1, 1, 2])
        rollback = settings.rollbacks and generator.random() < 0.15
        kind = generator.random()
        if kind < 0.12:
            kills.append(Kill(generator.choice(["worker-0", "worker-1"]), rollback=rollback))
        elif kind < 0.3:
            nested = _nested(generator, starts, server, nests)
            kills.append(Kill(server, nested=nested, also=also if also != server else "", rollback=rollback))
        else:
            point = others[len(kills) % len(others)]
            server = server if server in point.servers else point.servers[0]
            nested = _nested(generator, starts, server, nests)
            rollback = rollback or point.name.startswith("rollback-")
            kills.append(Kill(server, point.name, _action(generator, point), _nth(generator, point), nested, also if also != server else "", rollback))
        deaths += 1 + len(kills[-1].nested) + bool(kills[-1].also)
    return kills


class _Turns:
    """Gives the points of a list one after another, those that a server does not pass left out, and begins again."""

    def __init__(self, listed: list[points.Point]) -> None:
        self._listed = listed

    def take(self, server: str) -> points.Point:
        at = next(i for i, p in enumerate(self._listed) if server in p.servers)
        point = self._listed.pop(at)
        self._listed.append(point)
        return point


def _nested(generator: random.Random, starts: _Turns, server: str, count: int) -> tuple[str, ...]:
    return tuple(_no_memory(generator) if generator.random() < 0.1 else plan_of(generator, starts.take(server)) for _ in range(count))


def _no_memory(generator: random.Random) -> str:
    """A start takes some 50,000 allocations."""
    return f"{MALLOC}{int(10 ** generator.uniform(2, 5.5))}"


def _action(generator: random.Random, point: points.Point) -> str:
    return generator.choice(["kill", "kill", "exit", "error"] if point.can_fail else ["kill", "kill", "exit"])


def _nth(generator: random.Random, point: points.Point) -> int:
    """Hash roots come every 16 versions, all else of a step with each."""
    return generator.randint(1, 12) if point.phase == "Step" and not point.name.startswith("root-") else 1


def plan_of(generator: random.Random, point: points.Point) -> str:
    nth = generator.randint(1, 40) if point.name.startswith("record-replay") else 1
    return f"{point.name}={_action(generator, point)}@{nth}"
