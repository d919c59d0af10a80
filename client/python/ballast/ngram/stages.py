"""Runs stages once: what is finished in the work folder is taken from there; what runs is measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ballast.ngram.engine import Engine
from ballast.ngram.work import Work, digest


@dataclass
class Stage:
    """One stage while it runs, and what is left of it: `doc` holds its results, `meters` what its tasks used."""

    name: str
    folder: str
    doc: dict[str, Any] = field(default_factory=dict)
    meters: list[dict[str, Any]] = field(default_factory=list)
    driver_cpu_s: float = 0.0  # Of the estimator on the driver.

    def add_meters(self, texts: Iterable[Any]) -> None:
        self.meters += [json.loads(bytes(text) if not isinstance(text, str) else text) for text in texts if text]


class Runner:
    """Keeps the costs of all stages in `costs`, in the order in which they ran."""

    def __init__(self, engine: Engine, work: Work) -> None:
        self.engine = engine
        self.work = work
        self.costs: list[dict[str, Any]] = []

    def run(self, model: str, name: str, inputs: Any, function: Callable[[Stage], None]) -> Stage:
        """`inputs`: everything that the result depends on."""
        stage = Stage(name, f"{model}.{name}-{digest([name, inputs])}")
        title = f"{model}: {name}"
        done = self.work.finished(stage.folder)
        if done is not None:
            stage.doc, stage.meters = done["doc"], done["meters"]
            self.costs.append({**done["costs"], "resumed": True})
            self.engine.say(f"{title}: was finished before")
            return stage
        self.work.begin(stage.folder)
        before = self.engine.costs()
        began = time.time()
        with self.engine.progress(title):
            function(stage)
        costs = self._costs(model, name, stage, before, time.time() - began)
        self.work.finish(stage.folder, {"doc": stage.doc, "meters": stage.meters, "costs": costs})
        self.costs.append(costs)
        self.engine.say(f"{title}: {costs['latency_s']:.1f} s, {costs['cpu_s']:.1f} CPU s")
        return stage

    def always(self, model: str, name: str, function: Callable[[Stage], None]) -> Stage:
        """A stage that leaves nothing in the work folder: outputs are written again."""
        stage = Stage(name, "")
        before = self.engine.costs()
        began = time.time()
        with self.engine.progress(f"{model}: {name}"):
            function(stage)
        costs = self._costs(model, name, stage, before, time.time() - began)
        self.costs.append(costs)
        self.engine.say(f"{model}: {name}: {costs['latency_s']:.1f} s")
        return stage

    def _costs(self, model: str, name: str, stage: Stage, before: dict[str, float], latency_s: float) -> dict[str, Any]:
        spark = {key: value - before.get(key, 0.0) for key, value in self.engine.costs().items()}
        python = sum(m["python_cpu_s"] for m in stage.meters)
        processes = sum(m["estimator_cpu_s"] for m in stage.meters) + stage.driver_cpu_s
        return {
            "model": model,
            "stage": name,
            "latency_s": latency_s,
            "cpu_s": python + processes + spark.get("jvm_cpu_s", 0.0),
            "python_cpu_s": python,
            "estimator_cpu_s": processes,
            "jvm_cpu_s": spark.get("jvm_cpu_s"),
            "reserved_cpu_s": latency_s * self.engine.cores,
            "tasks": int(spark.get("tasks", 0)) or len(stage.meters),
            "shuffle_write_bytes": spark.get("shuffle_write_bytes"),
            "rss_peak_bytes": max((m["rss_peak_bytes"] for m in stage.meters), default=0),
            "estimator_rss_peak_bytes": max((m["estimator_rss_peak_bytes"] for m in stage.meters), default=0),
            "resumed": False,
        }
