"""What is made of estimated models, by the estimator on the driver: entropy pruning, weights from held-out text, the static mixture.

These hold whole models in the driver's memory, 40 to 60 bytes an n-gram.
"""

from __future__ import annotations

import pathlib
from typing import Any

from ballast.errors import BallastError
from ballast.ngram import rows, tables, words
from ballast.ngram.config import Config
from ballast.ngram.estimator import run
from ballast.ngram.pipeline import Pipeline
from ballast.ngram.stages import Runner, Stage


def shared_vocabulary_size(pipelines: list[Pipeline]) -> int:
    """Words of all models together and 2, <unk> and </s>: with one size the mixture's probabilities sum to 1."""
    union: set[bytes] = set()
    for pipeline in pipelines:
        union.update(pipeline.words())
    return len(union) + 2


def write_model(pipeline: Pipeline, keep: bool) -> None:
    """The outputs of one model. `keep`: the ARPA file is needed, at `arpa_file(pipeline)`, even if it is no output."""
    model = pipeline.model
    final = arpa_file(pipeline)
    if model.entropy_theta is None:
        if model.arpa or keep:
            pipeline.write_arpa(str(final))
        if model.tables:
            pipeline.write_tables(model.tables)
        return
    whole = pipeline.runner.engine.file(f"{model.name}.whole.arpa")
    pipeline.write_arpa(str(whole))
    flags: list[Any] = ["--theta", repr(model.entropy_theta), "--history", model.entropy_history]
    if model.entropy_history == "raw":
        flags += ["--tuples", _write_tuples(pipeline)]
    _prune(pipeline.runner, model.name, whole, final, flags)
    if model.tables:
        _write_tables(pipeline.runner, model.name, final, model.tables)


def arpa_file(pipeline: Pipeline) -> pathlib.Path:
    return pathlib.Path(pipeline.model.arpa) if pipeline.model.arpa else pipeline.runner.engine.file(f"{pipeline.model.name}.arpa")


def mix(runner: Runner, config: Config, pipelines: list[Pipeline]) -> dict[str, Any]:
    """Weights, their perplexity and number of iterations."""
    assert config.mix is not None
    options = config.mix
    binary = runner.engine.binary
    models = [arpa_file(pipeline) for pipeline in pipelines]
    names = [pipeline.model.name for pipeline in pipelines]
    found: dict[str, Any] = {"weights": dict(options.weights)}

    def learn(stage: Stage) -> None:
        text = run(binary, "mix", *models, "--dev", options.dev, "--eps", repr(options.eps)).decode()
        values = [line.split() for line in text.splitlines()]
        found["weights"] = dict(zip(names, (float(v[1]) for v in values if v[0] == "weight")))
        found.update({v[0]: float(v[1]) for v in values if v[0] in ("iterations", "perplexity")})
        stage.doc.update(found)

    if options.dev:
        runner.always("mix", "weights", learn)
        shown = ", ".join(f"{name} {weight:.6f}" for name, weight in found["weights"].items())
        runner.engine.say(f"mix: weights {shown}; perplexity {found['perplexity']:.4f} after {found['iterations']:.0f} iterations")
    final = pathlib.Path(options.arpa) if options.arpa else runner.engine.file("mix.arpa")
    mixed = runner.engine.file("mixed.arpa") if options.entropy_theta is not None else final
    weights = ",".join(repr(found["weights"][name]) for name in names)
    final.parent.mkdir(parents=True, exist_ok=True)
    runner.always("mix", "mix", lambda stage: _ignore(run(binary, "mix", *models, "--weights", weights, "--out", mixed)))
    if options.entropy_theta is not None:
        _prune(runner, "mix", mixed, final, ["--theta", repr(options.entropy_theta)])
    if options.tables:
        _write_tables(runner, "mix", final, options.tables)
    return found


def check_dev(path: str, pipelines: list[Pipeline]) -> None:
    """Raises BallastError(HELD_OUT_UNKNOWN) for a text of which no model knows a word: any weights would do."""
    try:
        found = words.split(pathlib.Path(path).read_bytes())
    except OSError as e:
        raise BallastError("SOURCE_NOT_FOUND", f"[mix] dev: {path} cannot be read: {e.strerror}") from e
    if not any(found.intersection(pipeline.words()) for pipeline in pipelines):
        message = f"[mix] dev: {path} holds no word that a model knows; weights learnt from it would say nothing: "
        message += "take held-out text of the models' kind"
        raise BallastError("HELD_OUT_UNKNOWN", message)


def _prune(runner: Runner, name: str, whole: pathlib.Path, final: pathlib.Path, flags: list[Any]) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    runner.always(name, "entropy pruning", lambda stage: _ignore(run(runner.engine.binary, "prune", whole, "--out", final, *flags)))


def _write_tuples(pipeline: Pipeline) -> pathlib.Path:
    """All tuples as one sorted file, by the estimator."""
    order = pipeline.model.order
    unsorted, path = (pipeline.runner.engine.file(f"{pipeline.model.name}.{name}") for name in ("unsorted", "tuples"))
    with open(unsorted, "wb") as out:
        out.write(rows.head(order, 1))
        total = 0
        for count, data in pipeline.tuples():
            out.write(data)
            total += count
        out.write(rows.end(total))
    run(pipeline.runner.engine.binary, "combine", unsorted, "--out", path)
    unsorted.unlink()
    return path


def _write_tables(runner: Runner, name: str, arpa: pathlib.Path, uri: str) -> None:
    def write(stage: Stage) -> None:
        vocabulary, model = (runner.engine.file(f"{name}.{what}") for what in ("vocabulary", "rows"))
        run(runner.engine.binary, "arpa", arpa, "--vocab", vocabulary, "--out", model)
        tables.write_vocabulary(uri, vocabulary.read_bytes().split(b"\n")[:-1])
        with open(model, "rb") as stream:
            tables.write_model(uri, rows.read_streams(stream.read))

    runner.always(name, "tables", write)


def _ignore(_: bytes) -> None:
    """For functions of stages that have nothing to give back."""
