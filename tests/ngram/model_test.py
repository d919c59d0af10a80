"""`query`, `arpa`, `prune` and `mix` against straightforward dictionaries over the rows of an ARPA file."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from tests.ngram.estimate_test import FALLBACK_FLAGS, random_text
from tests.ngram.reference import BOS, EOS, UNK, Model, read_arpa, sentences


class Scorer:
    """An ARPA file as a dictionary; scores as the format says."""

    def __init__(self, arpa: bytes):
        self.rows, counts = read_arpa(arpa, float)
        self.order = len(counts)

    def score(self, history: tuple, word: bytes) -> float:
        word = word if (word,) in self.rows else UNK
        history = tuple(w if (w,) in self.rows else UNK for w in history[max(0, len(history) - self.order + 1) :])
        return self._score(history, word)

    def _score(self, history: tuple, word: bytes) -> float:
        if history + (word,) in self.rows:
            return float(self.rows[history + (word,)][0])
        backoff = self.rows[history][1] if history in self.rows else None
        return float(backoff or 0) + self._score(history[1:], word)

    def events(self, text: bytes):
        for line in sentences(text):
            words = [BOS, *line, EOS]
            for i in range(1, len(words)):
                yield tuple(words[max(0, i - self.order + 1) : i]), words[i]

    def by_context(self, n: int) -> dict[tuple, list[tuple]]:
        contexts: dict[tuple, list[tuple]] = {}
        for gram in self.rows:
            if len(gram) == n:
                contexts.setdefault(gram[:-1], []).append(gram)
        return contexts

    def assert_sums_to_one(self, tolerance: float) -> None:
        words = [gram[0] for gram in self.rows if len(gram) == 1 and gram[0] != BOS]
        for context in {gram[:-1] for gram in self.rows}:
            assert sum(10 ** self._score(context, word) for word in words) == pytest.approx(1, abs=tolerance), context


def _figures(output: bytes) -> dict[str, float]:
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in output.decode().splitlines() if " " in line}


def test_perplexity_of_a_text_with_unknown_words(ngram):
    model = Scorer(ngram.train(random_text(41), "--order", 3, *FALLBACK_FLAGS))
    text = random_text(42, sentences=50, words=60)
    (ngram.scratch / "test").write_bytes(text)
    got = _figures(ngram.ok("query", ngram.scratch / "model.arpa", ngram.scratch / "test"))
    scored = [(model.score(history, word), (word,) in model.rows) for history, word in model.events(text)]
    assert got["events"] == len(scored)
    assert got["unknown words"] == sum(not known for _, known in scored) > 0
    assert got["perplexity including unknown words"] == pytest.approx(10 ** (-sum(p for p, _ in scored) / len(scored)), rel=1e-6)
    known = [p for p, known in scored if known]
    assert got["perplexity excluding unknown words"] == pytest.approx(10 ** (-sum(known) / len(known)), rel=1e-6)


def test_text_without_a_known_word_is_an_error(ngram):
    ngram.train(random_text(41), "--order", 2, *FALLBACK_FLAGS)
    (ngram.scratch / "test").write_bytes(b"nobody knows\n")
    assert "not one word" in ngram.error("query", ngram.scratch / "model.arpa", ngram.scratch / "test")


def test_reserved_word_in_a_held_out_text_names_the_line(ngram):
    """It would be scored as a word: <s> has probability 1."""
    ngram.train(random_text(41), "--order", 2, *FALLBACK_FLAGS)
    (ngram.scratch / "test").write_bytes(b"w1 w2\nw1 <s>\n")
    assert "test line 2" in ngram.error("query", ngram.scratch / "model.arpa", ngram.scratch / "test")


def test_arpa_to_rows_and_back_is_the_same_file(ngram):
    arpa = ngram.train(random_text(43), "--order", 4, *FALLBACK_FLAGS)
    paths = {name: ngram.scratch / name for name in ("model.arpa", "rows", "vocab", "again")}
    ngram.ok("arpa", paths["model.arpa"], "--out", paths["rows"], "--vocab", paths["vocab"])
    ngram.ok("arpa", paths["rows"], "--from-rows", "--vocab", paths["vocab"], "--out", paths["again"])
    assert paths["again"].read_bytes() == arpa


@pytest.mark.parametrize("damage", [(b"ngram 2=", b"ngram 2=1"), (b"\\end\\", b""), (b"\\2-grams:", b"\\3-grams:"), (b"\tw1\t", b"\tw1 w2 w3\t")])
def test_damaged_arpa_names_the_line(ngram, damage: tuple):
    arpa = ngram.train(random_text(43), "--order", 2, *FALLBACK_FLAGS)
    (ngram.scratch / "damaged").write_bytes(arpa.replace(*damage, 1))
    assert " line " in ngram.error("query", ngram.scratch / "damaged", ngram.scratch / "text")


def _growths(model: Scorer, n: int, histories: dict[tuple, float]) -> dict[tuple, float]:
    """By how much the perplexity grows without each n-gram of order n; infinite where the context keeps all."""
    growths = {}
    for context, grams in model.by_context(n).items():
        p = {gram: 10 ** model.rows[gram][0] for gram in grams}
        lower = {gram: 10 ** model._score(gram[1:-1], gram[-1]) for gram in grams}
        num, den = 1 - sum(p.values()), 1 - sum(lower.values())
        for gram in grams:
            if num < 0 or den <= 0:
                growths[gram] = math.inf
                continue
            b1 = math.log10((num + p[gram]) / (den + lower[gram]))
            change = p[gram] * (math.log10(lower[gram]) + b1 - model.rows[gram][0]) + num * (b1 - model.rows[context][1])
            growths[gram] = 10 ** -(10 ** histories[context] * change) - 1
    return growths


def _entropy_pruned(model: Scorer, histories: dict[tuple, float], theta: float) -> set[tuple]:
    kept = {gram for gram in model.rows if len(gram) == 1}
    for n in range(model.order, 1, -1):
        kept |= {gram for gram, growth in _growths(model, n, histories).items() if growth >= theta or gram in kept}
        kept |= {gram[:-1] for gram in kept if len(gram) == n}
    return kept


def _model_histories(model: Scorer) -> dict[tuple, float]:
    scores = {}
    for gram in model.rows:
        scores[gram] = sum(model.rows[(EOS,)][0] if w == BOS else model._score(gram[:i], w) for i, w in enumerate(gram))
    return scores


def test_entropy_pruning_does_not_round_what_it_subtracts(ngram):
    """As float32, the numbers of the file moved decisions by 1e-4 of the threshold: 20 bigrams of a real model, all alike."""
    model = Scorer(ngram.train(random_text(59, sentences=400, words=50), "--order", 2, *FALLBACK_FLAGS))
    growths = sorted((growth, gram) for gram, growth in _growths(model, 2, _model_histories(model)).items() if 1e-6 < growth < 1e-3)
    for growth, gram in growths[:: len(growths) // 5]:
        for factor, stays in ((1 - 1e-7, True), (1 + 1e-7, False)):
            ngram.ok("prune", ngram.scratch / "model.arpa", "--theta", repr(growth * factor), "--out", ngram.scratch / "pruned")
            assert (gram in Scorer((ngram.scratch / "pruned").read_bytes()).rows) == stays, (gram, growth)


@pytest.mark.parametrize("history", ["model", "raw"])
@pytest.mark.parametrize("theta", [1e-5, 1e-3])
def test_entropy_pruning_keeps_what_the_formula_says(ngram, history: str, theta: float):
    text = random_text(47, sentences=400, words=50)
    model = Scorer(ngram.train(text, "--order", 3, *FALLBACK_FLAGS))
    flags = ["--theta", theta, "--history", history, "--out", ngram.scratch / "pruned"]
    if history == "raw":
        ngram.ok("count", ngram.scratch / "text", "--order", 3, "--vocab", ngram.scratch / "vocab", "--out", ngram.scratch / "tuples")
        flags += ["--tuples", ngram.scratch / "tuples"]
        reference = Model(text, 3, fallback=(0.5, 1, 1.5))
        total = sum(reference.tuples.values())
        count = {gram: reference.raw[len(gram)][gram] for gram in model.rows if len(gram) < 3} | {(BOS,): len(sentences(text)), (UNK,): 0}
        histories = {gram: math.log10(c / total) if c else -math.inf for gram, c in count.items()}
    else:
        histories = _model_histories(model)
    ngram.ok("prune", ngram.scratch / "model.arpa", *flags)
    pruned = Scorer((ngram.scratch / "pruned").read_bytes())
    want = _entropy_pruned(model, histories, theta)
    assert set(pruned.rows) == want
    assert 0 < len(model.rows) - len(want) < len(model.rows)
    assert all(pruned.rows[gram][0] == model.rows[gram][0] for gram in want)
    pruned.assert_sums_to_one(2e-6)


def _mix_inputs(ngram) -> list[Scorer]:
    """Three models of one vocabulary size, of texts that differ."""
    draw, texts = random.Random(53), []
    for part in range(3):
        names = [f"w{i}".encode() for i in range(20 * part, 20 * part + 50)]
        draw.shuffle(names)
        texts.append(random_text(53 + part, sentences=300, names=names))
    union = {word for text in texts for line in sentences(text) for word in line}
    models = []
    for i, text in enumerate(texts):
        models.append(Scorer(ngram.train(text, "--order", 3, "--vocab-pad", len(union) + 2, *FALLBACK_FLAGS)))
        (ngram.scratch / "model.arpa").rename(ngram.scratch / f"{i}.arpa")
    (ngram.scratch / "dev").write_bytes(texts[0][:4000] + texts[1][:1000] + b"unknown w1\n")
    return models


def test_weights_are_those_of_expectation_maximization(ngram):
    models = _mix_inputs(ngram)
    arpas = [ngram.scratch / f"{i}.arpa" for i in range(3)]
    dev = (ngram.scratch / "dev").read_bytes()
    table = np.array([[10 ** model.score(history, word) for model in models] for history, word in models[0].events(dev)])
    weights = np.full(3, 1 / 3)
    for _ in range(5000):
        shares = weights * table
        weights = (shares / shares.sum(axis=1, keepdims=True)).mean(axis=0)
    output = ngram.ok("mix", *arpas, "--dev", ngram.scratch / "dev", "--eps", "1e-12").decode().splitlines()
    got = [float(line.split()[1]) for line in output if line.startswith("weight ")]
    assert got == pytest.approx(list(weights), abs=1e-7)
    perplexity = float(next(line for line in output if line.startswith("perplexity")).split()[1])
    assert perplexity == pytest.approx(math.exp(-np.log(table @ weights).mean()), rel=1e-6)


def test_static_mix_is_the_weighted_sum_and_sums_to_one(ngram):
    models = _mix_inputs(ngram)
    ngram.ok("mix", *[ngram.scratch / f"{i}.arpa" for i in range(3)], "--weights", "0.5,0.3,0.2", "--out", ngram.scratch / "mixed")
    mixed = Scorer((ngram.scratch / "mixed").read_bytes())
    assert set(mixed.rows) == set().union(*(model.rows for model in models))
    for gram, (log_p, _) in mixed.rows.items():
        if gram != (BOS,):
            want = sum(w * 10 ** model.score(gram[:-1], gram[-1]) for w, model in zip((0.5, 0.3, 0.2), models))
            assert float(log_p) == pytest.approx(math.log10(want), abs=1e-6), gram
    mixed.assert_sums_to_one(5e-6)


def test_weights_that_do_not_sum_to_one(ngram):
    ngram.train(random_text(41), "--order", 2, *FALLBACK_FLAGS)
    arpa = ngram.scratch / "model.arpa"
    assert "sum to 1" in ngram.error("mix", arpa, arpa, "--weights", "0.5,0.6")
