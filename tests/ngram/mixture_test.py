"""Several sub-models, entropy pruning and the mixture, over tables in memory: what `ballast-ngram` makes of the same texts by hand."""

from __future__ import annotations

import pathlib

import pyarrow.parquet as pq
import pytest
from ballast.errors import BallastError
from ballast.ngram import train
from tests.ngram.application_test import configure
from tests.ngram.estimate_test import FALLBACK_FLAGS, random_text
from tests.ngram.local_engine import LocalEngine
from tests.ngram.reference import read_arpa


@pytest.fixture
def texts(ngram) -> dict[str, bytes]:
    """Two texts that share half of their words, and a held-out one."""
    names = [f"w{i}".encode() for i in range(60)]
    texts = {"a": random_text(101, names=names[:40]), "b": random_text(103, sentences=200, names=names[20:]), "dev": random_text(107, 80, names=names)}
    for name, text in texts.items():
        (ngram.scratch / name).write_bytes(text)
    return texts


def _models(ngram, texts: dict[str, bytes], **options) -> tuple[dict, int]:
    size = len(set((texts["a"] + texts["b"]).split())) + 2
    return {name: {"text": str(ngram.scratch / name), "order": 3, **options} for name in "ab"}, size


def test_weights_and_mixture(ngram, texts: dict[str, bytes]):
    models, size = _models(ngram, texts)
    mix = {"dev": str(ngram.scratch / "dev"), "arpa": str(ngram.scratch / "mix.arpa"), "tables": str(ngram.scratch / "tables")}
    report = train.train_with(LocalEngine(ngram.binary), configure(ngram.scratch, models, mix=mix))
    for name in "ab":
        flags = ["--order", 3, "--vocab-pad", size, *FALLBACK_FLAGS]
        ngram.ok("train", ngram.scratch / name, "--out", ngram.scratch / f"{name}.want", *flags)
        assert (ngram.scratch / f"{name}.arpa").read_bytes() == (ngram.scratch / f"{name}.want").read_bytes()
    wants = [ngram.scratch / f"{name}.want" for name in "ab"]
    said = ngram.ok("mix", *wants, "--dev", ngram.scratch / "dev", "--out", ngram.scratch / "mix.want").decode()
    weights = [float(line.split()[1]) for line in said.splitlines() if line.startswith("weight")]
    assert list(report["mix"]["weights"].values()) == weights and sum(weights) == pytest.approx(1)
    # The weights went through decimals of nine places.
    got, want = (read_arpa((ngram.scratch / f"mix.{end}").read_bytes())[0] for end in ("arpa", "want"))
    assert got.keys() == want.keys()
    assert all(got[g][0] == pytest.approx(want[g][0], abs=1e-6) for g in want)
    assert pq.read_table(ngram.scratch / "tables" / "ngrams").num_rows == len(got)


def test_given_weights(ngram, texts: dict[str, bytes]):
    models, _ = _models(ngram, texts)
    mix = {"weights": {"a": 0.75, "b": 0.25}, "arpa": str(ngram.scratch / "mix.arpa")}
    train.train_with(LocalEngine(ngram.binary), configure(ngram.scratch, models, mix=mix))
    arpas = [ngram.scratch / f"{name}.arpa" for name in "ab"]
    ngram.ok("mix", *arpas, "--weights", "0.75,0.25", "--out", ngram.scratch / "want")
    assert (ngram.scratch / "mix.arpa").read_bytes() == (ngram.scratch / "want").read_bytes()


@pytest.mark.parametrize("history", ["model", "raw"])
def test_entropy_pruning(ngram, texts: dict[str, bytes], history: str):
    theta = 1e-3
    options = {"text": str(ngram.scratch / "a"), "order": 4, "entropy_theta": theta, "entropy_history": history, "tables": str(ngram.scratch / "tables")}
    train.train_with(LocalEngine(ngram.binary), configure(ngram.scratch, {"m": options}))
    (ngram.scratch / "whole").write_bytes(ngram.train(texts["a"], "--order", 4, *FALLBACK_FLAGS))
    ngram.ok("count", ngram.scratch / "a", "--order", 4, "--vocab", ngram.scratch / "v", "--out", ngram.scratch / "tuples")
    raw = ["--tuples", ngram.scratch / "tuples"] if history == "raw" else []
    ngram.ok("prune", ngram.scratch / "whole", "--theta", theta, "--history", history, *raw, "--out", ngram.scratch / "want")
    assert (ngram.scratch / "m.arpa").read_bytes() == (ngram.scratch / "want").read_bytes()
    rows = pq.read_table(ngram.scratch / "tables" / "ngrams").num_rows
    assert rows == len(read_arpa((ngram.scratch / "want").read_bytes())[0]) < len(read_arpa((ngram.scratch / "whole").read_bytes())[0])


def test_held_out_text_without_a_known_word(ngram, texts: dict[str, bytes]):
    models, _ = _models(ngram, texts)
    (ngram.scratch / "dev").write_bytes("ничего знакомого\n".encode())
    mix = {"dev": str(ngram.scratch / "dev"), "arpa": str(ngram.scratch / "mix.arpa")}
    with pytest.raises(BallastError, match="holds no word that a model knows"):
        train.train_with(LocalEngine(ngram.binary), configure(ngram.scratch, models, mix=mix))


def test_held_out_text_that_is_missing_is_found_before_anything_is_estimated(ngram, texts: dict[str, bytes]):
    models, _ = _models(ngram, texts)
    mix = {"dev": str(pathlib.Path(ngram.scratch) / "nowhere"), "arpa": str(ngram.scratch / "mix.arpa")}
    with pytest.raises(BallastError, match="nowhere cannot be read"):
        train.train_with(LocalEngine(ngram.binary), configure(ngram.scratch, models, mix=mix))
    assert not list((ngram.scratch / "work").glob("a.count-*"))
