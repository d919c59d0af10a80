"""`ballast-ngram train` against the golden values of docs/NGRAM.md and, number by number, against the slow reference."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from tests.ngram.reference import Model, read_arpa

FALLBACK = (0.5, 1, 1.5)
FALLBACK_FLAGS = ("--discount-fallback", "0.5,1,1.5")


def random_text(seed: int, sentences: int = 300, words: int = 40, names=None) -> bytes:
    """Zipf-like words, sentences of 0 to 12 of them."""
    draw = random.Random(seed)
    names = names or [f"w{i}".encode() for i in range(words)]
    weights = [1 / (i + 1) for i in range(len(names))]
    lines = (b" ".join(draw.choices(names, weights, k=draw.randrange(13))) for _ in range(sentences))
    return b"".join(line + b"\n" for line in lines)


def assert_equals_reference(arpa: bytes, model: Model) -> None:
    got, _ = read_arpa(arpa)
    want = model.rows()
    assert got.keys() == want.keys()
    differing = [(gram, got[gram], want[gram]) for gram in want if not _same(got[gram], want[gram])]
    assert not differing, f"{len(differing)} of {len(want)} differ, as {differing[:3]}"


def _same(got: tuple, want: tuple) -> bool:
    # The probabilities are equal bit for bit; the two libraries' log10 may differ in the last bit.
    for a, b in zip(got, want):
        if (a is None) != (b is None):
            return False
        if a is not None and abs(a - b) > 2 * np.spacing(np.float32(abs(b))):
            return False
    return True


def test_golden_values_of_the_specification(ngram):
    rows, counts = read_arpa(ngram.train(b"r o t\no a r\no a t\n", "--order", 3, *FALLBACK_FLAGS))
    golden = {
        "<unk>": "-1.0791812", "</s>": "-0.71120447", "r": "-0.71120447", "o": "-0.71120447", "t": "-0.71120447", "a": "-0.85733247",
        "r </s>": "-0.4593925", "<s> r": "-0.5785789", "o a": "-0.49560466", "a r </s>": "-0.17159076", "o t </s>": "-0.09766466",
        "o a r": "-0.37303266", "<s> o a": "-0.18063891",
    }  # fmt: skip
    for words, log_p in golden.items():
        assert rows[tuple(words.encode().split())][0] == np.float32(log_p), words
    assert {float(backoff) for _, backoff in rows.values() if backoff} == {float(np.float32("-0.30103"))}
    assert rows[(b"<s>",)][0] == 0
    assert counts[0] == 7


@pytest.mark.parametrize("order", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("compat", [False, True])
def test_every_number_equals_the_reference(ngram, order: int, compat: bool):
    seed = 100 * order + compat
    print(f"seed {seed}")
    text = random_text(seed)
    flags = ["--order", order, *FALLBACK_FLAGS, *(["--compat", "lmplz"] if compat else [])]
    assert_equals_reference(ngram.train(text, *flags), Model(text, order, fallback=FALLBACK, compat=compat))


# (order, prune, limited): SHA-256 of the sorted lines that lmplz of kenlm 0.3.0 wrote of the text below, with the same discount fallback.
LMPLZ = {
    (2, None, False): "b94678f9c7d5ed420d014230aeb9084192f8e892c1e0e360a089fa317d0fc469",
    (3, None, False): "c1eb55ca9acd896fc27b68803d99453f5ee4e19925eddb642081292ca2e6aa73",
    (4, "0,0,1", False): "fc4522ecf25f21bbcbf22378e06a88ddfb2953aa08449e1ca113b007338ed16e",
    (5, None, False): "6f330527f9ca34af43978a2877ad783559e78b1b9b1c8e5d19bf563769d8f1b0",
    (5, "1,2,3", False): "384391553944395429609b75cb035d57a709dce4041b8105c275582afeb18a2a",
    (6, "0,0,1,1,2", False): "d295a15b9ac42f6a78d67bce256cbe8b3cf397b4a2ce4173b790bd85d9dafd27",
    (4, None, True): "c82db34bb9e5cabc62cd352c8af0e8556c2b54e40ffe1ec6579de403e24622bc",
    (3, "0,1", True): "1e0fd6dc0c34d80c95cc6afe443f7aae121a1ad74468995168fb542229a0708f",
}


@pytest.mark.parametrize(("order", "prune", "limited"), LMPLZ)
def test_every_byte_equals_lmplz(ngram, order: int, prune: str | None, limited: bool):
    """corpus_test.py does so on real text."""
    text = random_text(997, sentences=4000, words=800)
    assert hashlib.sha256(text).hexdigest() == "0f67d40d9dee18374a9aaf384221d7ee5b7fe27722ef6af524ea468e683a8d93", "Python's random draws another text"
    (ngram.scratch / "list").write_bytes(b"\n".join(f"w{i}".encode() for i in range(0, 800, 3)))
    flags = [*(["--prune", prune] if prune else []), *(["--limit-vocab", ngram.scratch / "list"] if limited else [])]
    lines = sorted(ngram.train(text, "--order", order, "--compat", "lmplz", *FALLBACK_FLAGS, *flags).split(b"\n")[:-1])
    assert hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest() == LMPLZ[order, prune, limited]


@pytest.mark.parametrize("prune", [(0, 0, 1), (0, 0, 1, 1, 2), (1, 2, 3), (2,)])
def test_cutoffs_equal_the_reference(ngram, prune: tuple):
    print("seed 7")
    text = random_text(7, sentences=600)
    order = max(3, len(prune))
    flags = ["--order", order, "--prune", ",".join(map(str, prune)), *FALLBACK_FLAGS]
    assert_equals_reference(ngram.train(text, *flags), Model(text, order, prune=prune, fallback=FALLBACK))


@pytest.mark.parametrize("prune", [None, (0, 1), (0, 0, 1)])
def test_limited_vocabulary_equals_the_reference(ngram, prune: tuple | None):
    print("seed 13")
    text = random_text(13, sentences=600)
    limit = [f"w{i}".encode() for i in range(0, 40, 3)]
    (ngram.scratch / "list").write_bytes(b"w0 w3\tnowhere\n<s>\n" + b"\n".join(limit[2:]))
    flags = ["--limit-vocab", ngram.scratch / "list", *FALLBACK_FLAGS, *(["--prune", ",".join(map(str, prune))] if prune else [])]
    model = Model(text, 4, prune=prune or (), limit=limit, fallback=FALLBACK)
    got = ngram.train(text, "--order", 4, *flags)
    assert_equals_reference(got, model)
    assert not any(b"w1" in gram for gram in read_arpa(got)[0]) and (b"w3",) in read_arpa(got)[0]
    assert ngram.train(text, "--order", 4, "--shards", 30, "--tau", 0.3, *flags) == got


def test_non_ascii_words_odd_spaces_empty_lines_and_no_last_newline(ngram):
    names = ["größe", "東京", "мир", "naïve", "ﷺ", "a\u00a0b", "\u2003x"]
    text = random_text(3, names=[name.encode() for name in names]) + b"\n\n \t \r\n" + "東京\tмир\r\0größe".encode() + b" \xff\xfe broken"
    for order in (2, 4):
        got = ngram.train(text, "--order", order, *FALLBACK_FLAGS)
        assert_equals_reference(got, Model(text, order, fallback=FALLBACK))
        assert ("a\u00a0b".encode(),) in read_arpa(got)[0], "a no-break space separates no words"


def test_a_text_of_one_empty_line_is_a_model(ngram):
    rows, _ = read_arpa(ngram.train(b"\n", "--order", 3, *FALLBACK_FLAGS))
    assert set(rows) == {(b"<unk>",), (b"<s>",), (b"</s>",), (b"<s>", b"</s>")}


@pytest.mark.parametrize("flags", [{"vocab_pad": 1000}, {"interpolate_unigrams": False}])
def test_unigram_options_equal_the_reference(ngram, flags: dict):
    text = random_text(11)
    given = ["--vocab-pad", 1000] if "vocab_pad" in flags else ["--no-interpolate-unigrams"]
    assert_equals_reference(ngram.train(text, "--order", 3, *FALLBACK_FLAGS, *given), Model(text, 3, fallback=FALLBACK, **flags))


@pytest.mark.parametrize("limited", [False, True])
def test_probabilities_of_every_context_sum_to_one(ngram, limited: bool):
    print("seed 23")
    (ngram.scratch / "list").write_bytes(b"\n".join(f"w{i}".encode() for i in range(25)))
    flags = ["--limit-vocab", ngram.scratch / "list"] if limited else []
    rows, _ = read_arpa(ngram.train(random_text(23), "--order", 4, "--prune", "0,0,1", *flags, *FALLBACK_FLAGS))
    words = [gram for gram in rows if len(gram) == 1 and gram != (b"<s>",)]

    def score(context: tuple, word: tuple) -> float:
        if context + word in rows:
            return float(rows[context + word][0])
        return float(rows[context][1] if context in rows else 0) + score(context[1:], word)

    contexts = {gram[:-1] for gram in rows}
    for context in contexts:
        total = sum(10 ** score(context, word) for word in words)
        assert total == pytest.approx(1, abs=2e-6), context


def test_little_memory_gives_the_same_bytes(ngram):
    """Sorted runs are spilled and merged."""
    text = random_text(5, sentences=3000, words=300)
    much = ngram.train(text, "--order", 4, *FALLBACK_FLAGS)
    assert ngram.train(text, "--order", 4, "--memory", "16K", *FALLBACK_FLAGS) == much


@pytest.mark.parametrize("shards", [1, 2, 7, 64])
@pytest.mark.parametrize(("tau", "levels"), [(2, 3), (0.1, 4), (0.5, 1), (0.01, 2)])
def test_any_sharding_gives_the_same_bytes(ngram, shards: int, tau: float, levels: int):
    text = random_text(9, sentences=500, words=80)
    flags = ["--order", 5, "--compat", "lmplz", "--prune", "0,0,1", *FALLBACK_FLAGS]
    unsharded = ngram.train(text, *flags)
    assert ngram.train(text, *flags, "--shards", shards, "--tau", tau, "--levels", levels) == unsharded
