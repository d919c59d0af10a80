"""What a training cost and how even its shards were: report.json, and report.html with plots, in one file that needs no other."""

from __future__ import annotations

import json
import pathlib
import resource
import time
from typing import Any, Optional

import numpy as np

from ballast.ngram.config import Config
from ballast.ngram.plan import Plan

_QUANTILES = 200  # Points of a plot.


def make(config: Config, engine: Any, costs: list[dict[str, Any]], pipelines: list[Any], mixed: Optional[dict[str, Any]]) -> dict[str, Any]:
    ran = [c for c in costs if not c["resumed"]]
    return {
        "configuration": config.path,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cores": engine.cores,
        "driver_rss_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "totals": {
            key: sum(c[key] or 0 for c in ran) for key in ("latency_s", "cpu_s", "python_cpu_s", "estimator_cpu_s", "jvm_cpu_s", "reserved_cpu_s")
        },
        "stages": costs,
        "models": [_model(pipeline) for pipeline in pipelines],
        "mix": mixed,
    }


def _model(pipeline: Any) -> dict[str, Any]:
    return {
        "name": pipeline.model.name,
        "order": pipeline.model.order,
        "discounts": pipeline.discounts,
        "ngrams": pipeline.ngrams(),
        "tuples": pipeline.tuple_count(),
        "kept_rows": pipeline.adjusted.doc["kept"],
        "wildcard_rows": pipeline.adjusted.doc["wildcards"],
        "zero_rows": pipeline.zero_rows,
        "zero_bytes": pipeline.zero_bytes,
        "iterations": len(pipeline.plan.levels),
        "levels": levels(pipeline.plan),
    }


def levels(plan: Plan) -> list[dict[str, Any]]:
    """`largest` and `largest_kept` are shards of the level before and after the opening, as shares of the mean of level 1."""
    found = []
    for number, level in enumerate(plan.levels, start=1):
        load = np.asarray(level.load, dtype=np.float64) / max(plan.mean_load, 1)
        kept = np.where(level.opened, 0, load)
        found.append(
            {
                "level": number,
                "shards": level.shards,
                "opened": int(level.opened.sum()),
                "ngrams": int(level.load.sum()),
                "opened_ngrams": int(level.load[level.opened].sum()),
                "mean_load": plan.mean_load,
                "largest": float(load.max(initial=0)),
                "largest_kept": float(kept.max(initial=0)),
                "sizes_before": _sizes(load),
                "sizes_after": _sizes(kept[~level.opened]),
            }
        )
    return found


def _sizes(load: Any) -> list[float]:
    """From the largest to the smallest, thinned: what a plot needs."""
    load = np.sort(load)[::-1]
    if len(load) > _QUANTILES:
        load = load[np.unique(np.geomspace(1, len(load), _QUANTILES).astype(int) - 1)]
    return [round(float(v), 4) for v in load]


def save(folder: str, doc: dict[str, Any]) -> None:
    from ballast.ngram.page import page

    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / "report.json").write_text(json.dumps(doc, indent=1) + "\n")
    (path / "report.html").write_text(page(doc))
