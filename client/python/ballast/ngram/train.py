"""A whole training: all models of a configuration, then what is made of them."""

from __future__ import annotations

import errno
import os
from typing import Any, Optional, TextIO

from ballast.errors import BallastError
from ballast.ngram import mixing, report
from ballast.ngram.config import Config, Model
from ballast.ngram.engine import Engine
from ballast.ngram.estimator import find_binary
from ballast.ngram.pipeline import Pipeline
from ballast.ngram.stages import Runner
from ballast.ngram.work import Work


def steps(config: Config) -> list[str]:
    """What will run, one a line: only what the configuration needs."""
    lines = []
    for model in config.models:
        lines += _model_steps(model, config)
    if config.mix is not None:
        lines.append("mix: weights " + ("as given" if config.mix.weights else f"by expectation maximization on {config.mix.dev}, on the driver"))
        lines.append("mix: the static mixture of " + ", ".join(m.name for m in config.models) + ", on the driver")
        if config.mix.entropy_theta is not None:
            lines.append(f"mix: entropy pruning, theta {config.mix.entropy_theta:g}, on the driver")
        lines += [f"mix: {what} to {where}" for what, where in (("ARPA", config.mix.arpa), ("tables", config.mix.tables)) if where]
    if config.report:
        lines.append(f"report to {config.report}: report.json, report.html")
    return lines


def _model_steps(model: Model, config: Config) -> list[str]:
    source = ", ".join(model.text) or model.parquet or model.table
    shards = f"{model.shards} shards" if model.shards else "as many shards as the counts ask for"
    lines = [
        f"read {model.source} {source}" + (", each sentence once" if model.deduplicate else ""),
        "vocabulary: distinct words, ids " + ("by first appearance" if model.source == "text" and not model.deduplicate else "in the order of bytes"),
        f"count: tuples of {model.order} words, combined in the task, then by their last two words",
        f"plan: {shards} at level 1, those over {model.tau:g} times the mean opened, {min(model.levels, model.order - 1)} levels at most",
        "adjust: each shard's counts of counts and share of the lower counts"
        + (f"; n-grams that occur up to {', '.join(map(str, model.cutoffs))} times into wildcard rows" if model.has_cutoffs else "")
        + (f"; those with a word that is not in {model.limit_vocab} too" if model.limit_vocab else ""),
        "barrier: sums, discounts" + (' ("lmplz")' if model.compat else "") + ", probabilities of the 0-shards, on the driver",
        "estimate: shards through the estimator (" + model.carrier + "), then merged by ranges of the last word",
    ]
    if config.mix is not None and model.vocab_pad is None:
        lines.insert(2, "vocabulary of all models: unknown words of each get the same share")
    if model.entropy_theta is not None:
        histories = "the raw counts" if model.entropy_history == "raw" else "the model"
        lines.append(f"entropy pruning, theta {model.entropy_theta:g}, histories of {histories}, on the driver")
    lines += [f"{what} to {where}" for what, where in (("ARPA", model.arpa), ("tables", model.tables)) if where]
    return [f"{model.name}: {line}" for line in lines]


def train(config: Config, session: Any, out: Optional[TextIO] = None) -> dict[str, Any]:
    """Trains, writes all outputs, returns the report. Raises BallastError; the same configuration again goes on after the last finished stage."""
    engine = Engine(session, find_binary(config.estimator), out)
    try:
        return train_with(engine, config)
    finally:
        engine.close()


def train_with(engine: Any, config: Config) -> dict[str, Any]:
    try:
        return _train_all(engine, config)
    except BallastError:
        raise
    except Exception as e:
        if not _is_full_disk(e):
            raise
        message = f"no space left on the disk of the work folder, {config.work}, of an output, or of Spark's own files (spark.local.dir): make room "
        message += "there or name another folder; the same configuration then goes on after the last finished stage"
        raise BallastError("DISK_FULL", message) from e


def _is_full_disk(error: Exception) -> bool:
    """Of the driver, or the text of an error of the JVM."""
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or os.strerror(errno.ENOSPC) in str(error)


def _train_all(engine: Any, config: Config) -> dict[str, Any]:
    runner = Runner(engine, Work(config.work))
    pipelines = [Pipeline(runner, model) for model in config.models]
    for pipeline in pipelines:
        pipeline.vocabulary()
    if config.mix is not None and config.mix.dev:
        mixing.check_dev(config.mix.dev, pipelines)
    shared = mixing.shared_vocabulary_size(pipelines) if config.mix is not None else 0
    for pipeline in pipelines:
        _train_one(pipeline, config, shared)
    mixed = mixing.mix(runner, config, pipelines) if config.mix is not None else None
    doc = report.make(config, engine, runner.costs, pipelines, mixed)
    if config.report:
        report.save(config.report, doc)
        engine.say(f"report: {config.report}/report.html")
    return doc


def _train_one(pipeline: Pipeline, config: Config, shared: int) -> None:
    model = pipeline.model
    pipeline.count()
    pipeline.make_plan()
    pipeline.adjust()
    pipeline.barrier(model.vocab_pad if model.vocab_pad is not None else shared)
    afterwards = config.mix is not None or model.entropy_theta is not None
    pipeline.estimate(arpa=bool(model.arpa) or afterwards, tables=bool(model.tables) and model.entropy_theta is None)
    mixing.write_model(pipeline, keep=config.mix is not None)
