"""The configuration is strict: what is wrong is named with file, table and key, and the nearest known key where there is one."""

from __future__ import annotations

import pathlib

import pytest
from ballast.errors import BallastError
from ballast.ngram import __main__, config, train

GOOD = {"model": {"m": {"text": "text", "arpa": "m.arpa"}}}


def _error(doc: dict) -> str:
    with pytest.raises(BallastError) as failed:
        config.parse(doc, "/conf/lm.toml")
    assert failed.value.reason == "BAD_CONFIG" and failed.value.message.startswith("/conf/lm.toml: ")
    return failed.value.message


def _model_error(**options) -> str:
    return _error({"model": {"m": {"text": "text", "arpa": "m.arpa", **options}}})


def test_defaults_and_paths_beside_the_file():
    done = config.parse(GOOD, "/conf/lm.toml")
    (model,) = done.models
    assert (model.order, model.tau, model.levels, model.carrier, model.vocab_pad) == (5, 2.0, 3, "subprocess", None)
    assert (model.text, model.arpa, done.work, done.report) == (("/conf/text",), "/conf/m.arpa", "/conf/lm.work", "")


def test_addresses_of_other_file_systems_stay(ngram):
    doc = {"work": "s3://bucket/work", "model": {"m": {"parquet": "hdfs://name/texts", "tables": "s3://bucket/lm"}}}
    done = config.parse(doc, "/conf/lm.toml")
    assert (done.work, done.models[0].parquet, done.models[0].tables) == ("s3://bucket/work", "hdfs://name/texts", "s3://bucket/lm")


def test_defaults_are_for_all_models():
    doc = {"defaults": {"order": 3, "tau": 1}, "model": {"a": {"text": "a", "arpa": "a.arpa"}, "b": {"text": "b", "arpa": "b.arpa", "order": 4}}}
    assert [(m.order, m.tau) for m in config.parse(doc, "lm.toml").models] == [(3, 1.0), (4, 1.0)]


@pytest.mark.parametrize(
    ("doc", "message"),
    [
        ({**GOOD, "modle": {}}, 'the file has no key "modle"; did you mean "model"?'),
        ({**GOOD, "mix": {"devv": "x", "arpa": "y"}}, '[mix] has no key "devv"; did you mean "dev"?'),
        ({**GOOD, "defaults": {"oder": 3}}, '[defaults] has no key "oder"; did you mean "order"?'),
        ({}, "no model"),
        ({"model": {"m": {"text": "t"}}}, "no output"),
        ({"model": {"m": {"text": "t", "parquet": "p", "arpa": "a"}}}, "one source, text, parquet or table; it has text and parquet"),
        ({"model": {"m": {"arpa": "a"}}}, "it has none"),
        ({"model": {"m/n": {"text": "t", "arpa": "a"}}}, "a name is made of"),
        ({**GOOD, "mix": {"dev": "d", "arpa": "a"}}, "two models or more"),
        ({**GOOD, "spark": {"executor.memory": "4g"}}, "[spark] holds settings"),
        ({**GOOD, "work": 3}, "work = 3: want a text in quotes"),
    ],
)
def test_what_is_wrong_in_the_file(doc: dict, message: str):
    assert message in _error(doc)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cutofs": [0]}, 'has no key "cutofs"; did you mean "cutoffs"?'),
        ({"cutoffs": [0, 2, 1]}, "cutoffs = [0, 2, 1]: want thresholds that do not decrease"),
        ({"cutoffs": [0, 0, 0, 0, 0, 1]}, "6 cutoffs for a model of order 5"),
        ({"order": 9}, "order = 9: want a whole number from 2 to 8"),
        ({"order": True}, "want a whole number"),
        ({"tau": 0}, "want a number over 0"),
        ({"memory": "lots"}, 'want bytes, as "256M"'),
        ({"compat": "srilm"}, 'one of "lmplz"'),
        ({"compat": "lmplz", "deduplicate": True}, "needs ids in the order of the text"),
        ({"carrier": "pigeon"}, 'one of "subprocess", "pipe"'),
        ({"discount_fallback": [1, 2, 3, 4]}, "one to three numbers"),
    ],
)
def test_what_is_wrong_in_a_model(options: dict, message: str):
    assert message in _model_error(**options)


def test_weights_are_of_the_models_and_sum_to_1():
    models = {name: {"text": name, "arpa": f"{name}.arpa"} for name in "ab"}
    assert "sum to 1" in _error({"model": models, "mix": {"weights": {"a": 0.5, "b": 0.4}, "arpa": "m"}})
    assert "the models are a, b" in _error({"model": models, "mix": {"weights": {"a": 0.5, "c": 0.5}, "arpa": "m"}})
    assert "either dev" in _error({"model": models, "mix": {"weights": {"a": 0.5, "b": 0.5}, "dev": "d", "arpa": "m"}})


def test_no_toml_and_no_file_are_errors_of_the_command(tmp_path: pathlib.Path, capsys):
    (tmp_path / "lm.toml").write_text("[model.m\n")
    assert __main__.main(["train", "--config", str(tmp_path / "lm.toml")]) == 2
    assert "is no TOML" in capsys.readouterr().err
    assert __main__.main(["train", "--config", str(tmp_path / "nowhere")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_explain_says_only_what_will_run(tmp_path: pathlib.Path, capsys):
    (tmp_path / "lm.toml").write_text('[model.m]\ntext = "t"\narpa = "m.arpa"\n')
    assert __main__.main(["train", "--explain", "--config", str(tmp_path / "lm.toml")]) == 0
    said = capsys.readouterr().out
    for word in ("entropy", "wildcard", "mix", "tables", "report", "lmplz"):
        assert word not in said
    assert [line.split(": ")[1].split()[0] for line in said.splitlines()] == ["read", "vocabulary", "count", "plan", "adjust", "barrier", "estimate", "ARPA"]
    more = 'tables = "t"\ncutoffs = [0, 1]\nentropy_theta = 1e-8\nentropy_history = "raw"\n[model.n]\ntext = "n"\n[mix]\ndev = "d"\narpa = "a"\n'
    (tmp_path / "lm.toml").write_text('[model.m]\ntext = "t"\n' + more)
    assert __main__.main(["train", "--explain", "--config", str(tmp_path / "lm.toml")]) == 0
    said = capsys.readouterr().out
    for word in ("entropy pruning, theta 1e-08, histories of the raw counts", "wildcard", "static mixture of m, n", "tables to", "of all models"):
        assert word in said


def test_steps_of_a_given_mixture_learn_nothing():
    models = {name: {"text": name} for name in "ab"}
    done = config.parse({"model": models, "mix": {"weights": {"a": 0.5, "b": 0.5}, "arpa": "m"}}, "lm.toml")
    assert "mix: weights as given" in train.steps(done)
