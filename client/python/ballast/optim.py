"""Optimizers and schedules: what the servers do with a step's gradient. The same arithmetic as torch.optim.

Plain values; nothing is computed here.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from ballast.errors import BallastError


@dataclass(frozen=True)
class Group:
    """Parameters that differ from the rest. `match`: one or more patterns of names ("*.bias", "emb.*"); the first group that matches wins.

    lr_scale      multiplies the learning rate
    weight_decay  None: the optimizer's own
    """

    match: Union[str, Sequence[str]]
    weight_decay: Optional[float] = None
    lr_scale: float = 1.0

    def matches(self, name: str) -> bool:
        patterns = [self.match] if isinstance(self.match, str) else self.match
        return any(fnmatch.fnmatchcase(name, p) for p in patterns)


@dataclass(frozen=True)
class _Optimizer:
    lr: float
    weight_decay: float = 0.0
    groups: Sequence[Group] = ()

    def __post_init__(self) -> None:
        if not self.lr >= 0:
            raise BallastError("BAD_SPEC", f"lr={self.lr} must not be negative")

    def group_of(self, name: str, aliases: Sequence[str] = ()) -> int:
        """Index into OptimizerSpec.groups; 0 is everything that no group matches."""
        for index, group in enumerate(self.groups):
            if any(group.matches(n) for n in (name, *aliases)):
                return index + 1
        return 0

    def spec(self) -> Any:
        """The OptimizerSpec message."""
        from ballast.v1 import run_pb2

        spec = run_pb2.OptimizerSpec(lr=self.lr)
        spec.groups.add(lr_scale=1.0, weight_decay=self.weight_decay)
        for group in self.groups:
            decay = self.weight_decay if group.weight_decay is None else group.weight_decay
            spec.groups.add(lr_scale=group.lr_scale, weight_decay=decay)
        self._fill(spec)
        return spec

    def _fill(self, spec: Any) -> None:
        raise TypeError("use SGD, Adam or AdamW")


@dataclass(frozen=True)
class SGD(_Optimizer):
    """torch.optim.SGD; weight_decay is added to the gradient."""

    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    def _fill(self, spec: Any) -> None:
        spec.kind = spec.SGD
        spec.momentum, spec.nesterov, spec.dampening = self.momentum, self.nesterov, self.dampening


@dataclass(frozen=True)
class Adam(_Optimizer):
    """torch.optim.Adam; weight_decay is added to the gradient."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def _fill(self, spec: Any) -> None:
        spec.kind = spec.ADAM
        (spec.beta1, spec.beta2), spec.eps = self.betas, self.eps


@dataclass(frozen=True)
class AdamW(_Optimizer):
    """torch.optim.AdamW; weight_decay is decoupled."""

    lr: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def _fill(self, spec: Any) -> None:
        spec.kind = spec.ADAMW
        (spec.beta1, spec.beta2), spec.eps = self.betas, self.eps


Optimizer = Union[SGD, Adam, AdamW]


@dataclass(frozen=True)
class Constant:
    """The optimizer's learning rate, always."""

    def spec(self) -> Any:
        from ballast.v1 import run_pb2

        return run_pb2.ScheduleSpec(kind=run_pb2.ScheduleSpec.CONSTANT)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear from lr / warmup_steps to lr, then a cosine that reaches min_lr at total_steps and stays there. Steps are optimizer updates."""

    warmup_steps: int
    total_steps: int
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.total_steps:
            raise BallastError("BAD_SPEC", f"WarmupCosine needs 0 <= warmup_steps < total_steps, got {self.warmup_steps} and {self.total_steps}")

    def spec(self) -> Any:
        from ballast.v1 import run_pb2

        return run_pb2.ScheduleSpec(
            kind=run_pb2.ScheduleSpec.WARMUP_COSINE, warmup_steps=self.warmup_steps, total_steps=self.total_steps, min_lr=self.min_lr
        )


Schedule = Union[Constant, WarmupCosine]
