"""The stages and tasks of `python -m ballast.ngram train` give the bytes of `ballast-ngram train`, whatever the splits of the text, shards,
thresholds, level limits, partitions and their order. Over tables in memory; spark_test.py does the same on Spark."""

from __future__ import annotations

import json
import pathlib
import random
import subprocess

import pytest
from ballast.errors import BallastError
from ballast.ngram import config, keys, plan, train
from tests.ngram.estimate_test import FALLBACK_FLAGS, random_text
from tests.ngram.local_engine import LocalEngine

FALLBACK = [0.5, 1, 1.5]


def configure(folder: pathlib.Path, models: dict[str, dict], **rest) -> config.Config:
    for name, options in models.items():
        options.setdefault("arpa", str(folder / f"{name}.arpa"))
        options.setdefault("discount_fallback", FALLBACK)
    return config.parse({"model": models, "work": str(folder / "work"), **rest}, str(folder / "lm.toml"))


def train_local(ngram, text: bytes, seed: int = 1, **options) -> bytes:
    """One model; a work folder of its own."""
    folder = ngram.scratch / f"run.{len(list(ngram.scratch.iterdir()))}"
    folder.mkdir()
    (folder / "text").write_bytes(text)
    done = configure(folder, {"m": {"text": str(folder / "text"), **options}})
    train.train_with(LocalEngine(ngram.binary, seed), done)
    return (folder / "m.arpa").read_bytes()


@pytest.mark.parametrize("order", [2, 3, 4, 5, 6])
def test_every_order(ngram, order: int):
    text = random_text(41 + order, sentences=200)
    assert train_local(ngram, text, order=order) == ngram.train(text, "--order", order, *FALLBACK_FLAGS)


@pytest.mark.parametrize(
    ("shards", "tau", "levels", "partitions"),
    [(1, 2.0, 3, 1), (5, 0.3, 4, 3), (16, 2.0, 1, 2), (16, 0.05, 2, 7), (64, 0.5, 3, 4), (700, 1.0, 4, 5)],
)
def test_shards_thresholds_levels_and_partitions_do_not_show(ngram, shards: int, tau: float, levels: int, partitions: int):
    text = random_text(43, sentences=400, words=60)
    options = {"shards": shards, "tau": tau, "levels": levels, "partitions": partitions, "compat": "lmplz", "cutoffs": [0, 0, 1]}
    want = ngram.train(text, "--order", 5, "--compat", "lmplz", "--prune", "0,0,1", *FALLBACK_FLAGS)
    assert train_local(ngram, text, seed=shards, order=5, **options) == want


@pytest.mark.parametrize("cutoffs", [[0, 1], [0, 0, 1, 1, 2], [1, 2, 3], [3]])
def test_cutoffs_through_wildcard_rows(ngram, cutoffs: list[int]):
    text = random_text(47, sentences=600, words=90)
    flags = ["--prune", ",".join(map(str, cutoffs)), *FALLBACK_FLAGS]
    assert train_local(ngram, text, order=5, cutoffs=cutoffs, shards=6, tau=0.7) == ngram.train(text, "--order", 5, *flags)


@pytest.mark.parametrize("cutoffs", [[], [0, 0, 1]])
def test_limited_vocabulary(ngram, cutoffs: list[int]):
    text = random_text(48, sentences=600, words=90)
    (ngram.scratch / "list").write_bytes(b"\n".join(f"w{i}".encode() for i in range(0, 200, 2)))
    flags = ["--limit-vocab", ngram.scratch / "list", *(["--prune", ",".join(map(str, cutoffs))] if cutoffs else []), *FALLBACK_FLAGS]
    options = {"limit_vocab": str(ngram.scratch / "list"), "shards": 6, "tau": 0.7, **({"cutoffs": cutoffs} if cutoffs else {})}
    assert train_local(ngram, text, order=5, **options) == ngram.train(text, "--order", 5, *flags)


def test_limited_vocabulary_that_is_missing_or_another_text_s(ngram):
    (ngram.scratch / "list").write_bytes(b"x y\n")
    with pytest.raises(BallastError, match=r"\[model.m\] limit_vocab: .*list holds no word of the source"):
        train_local(ngram, b"a b\n", limit_vocab=str(ngram.scratch / "list"))
    with pytest.raises(BallastError, match=r"limit_vocab: .*nowhere cannot be read"):
        train_local(ngram, b"a b\n", limit_vocab=str(ngram.scratch / "nowhere"))


def test_random_settings(ngram):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    draw = random.Random(seed)
    text = random_text(seed, sentences=draw.randrange(1, 500), words=draw.randrange(3, 120))
    options = {"order": draw.randrange(2, 7), "shards": draw.randrange(1, 200), "tau": draw.choice((0.01, 0.4, 1.5, 3.0)), "levels": draw.randrange(1, 6)}
    flags = ["--order", options["order"], "--compat", "lmplz", "--vocab-pad", 500, "--no-interpolate-unigrams", *FALLBACK_FLAGS]
    want = ngram.train(text, *flags)
    options.update(compat="lmplz", vocab_pad=500, interpolate_unigrams=False, partitions=draw.randrange(1, 9))
    assert train_local(ngram, text, seed, **options) == want, options


def test_non_ascii_text_empty_lines_and_every_white_space(ngram):
    text = "σ ἔν\tτῷ κόσμῳ\n\n \n日本 語 日本\r\nnaïve\0café\x0bone\u00a0word\n".encode() * 3 + b"\xff\xfe raw\nlast without end"
    assert train_local(ngram, text, order=3) == ngram.train(text, "--order", 3, *FALLBACK_FLAGS)


def test_text_of_empty_lines_is_a_model_of_empty_sentences(ngram):
    assert train_local(ngram, b"\n\n\n", order=2) == ngram.train(b"\n\n\n", "--order", 2, *FALLBACK_FLAGS)


def test_several_texts_are_read_in_their_order(ngram):
    first, second = random_text(53), random_text(59, words=70)
    (ngram.scratch / "b").write_bytes(first)
    (ngram.scratch / "a").write_bytes(second)
    done = configure(ngram.scratch, {"m": {"text": [str(ngram.scratch / "b"), str(ngram.scratch / "a")], "order": 4, "compat": "lmplz"}})
    train.train_with(LocalEngine(ngram.binary), done)
    assert (ngram.scratch / "m.arpa").read_bytes() == ngram.train(first + second, "--order", 4, "--compat", "lmplz", *FALLBACK_FLAGS)


def test_skip_symbols(ngram):
    text = b"<s> a b </s>\na <unk> c\n"
    assert train_local(ngram, text, order=2, skip_symbols=True) == ngram.train(b"a b\na c\n", "--order", 2, *FALLBACK_FLAGS)


@pytest.mark.parametrize("word", ["<s>", "</s>", "<unk>"])
def test_reserved_words_are_an_error_that_names_the_key(ngram, word: str):
    with pytest.raises(Exception, match=rf"the text holds the word {word}.*skip_symbols"):
        train_local(ngram, f"a b\nc {word} d\n".encode())


def test_source_with_no_text(ngram):
    with pytest.raises(BallastError, match=r"\[model.m\]: the source is empty"):
        train_local(ngram, b"")


def test_too_small_a_text_names_order_counts_and_remedy(ngram):
    with pytest.raises(BallastError) as failed:
        train_local(ngram, b"r o t\no a r\no a t\n", order=3, discount_fallback=[3, 3, 3])
    assert "discount_fallback: D1 must be from 0 to 1" in str(failed.value)
    (ngram.scratch / "text").write_bytes(b"r o t\no a r\no a t\n")
    doc = {"model": {"m": {"text": str(ngram.scratch / "text"), "order": 3, "arpa": "m.arpa"}}}
    with pytest.raises(BallastError) as failed:
        train.train_with(LocalEngine(ngram.binary), config.parse(doc, str(ngram.scratch / "lm.toml")))
    for part in ("order 1", "D3", "n1 ", "n2 ", "n3 ", "n4 ", "duplicate", "discount_fallback"):
        assert part in str(failed.value), failed.value


def test_a_full_disk_is_said_and_the_run_goes_on_where_it_was(ngram):
    work = ngram.scratch / "small"
    work.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", work], capture_output=True).returncode:
        pytest.skip("only root may mount a disk that is small enough to fill")
    text = random_text(73, sentences=2000, words=500)
    (ngram.scratch / "text").write_bytes(text)
    done = configure(ngram.scratch, {"m": {"text": str(ngram.scratch / "text"), "order": 4}}, work=str(work))
    try:
        with pytest.raises(BallastError, match=f"no space left on the disk of the work folder, {work}.*goes on"):
            train.train_with(LocalEngine(ngram.binary), done)
        assert not (ngram.scratch / "m.arpa").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", work], check=True)
        report = train.train_with(LocalEngine(ngram.binary), done)
    finally:
        subprocess.run(["umount", work], check=True)
    assert [stage["stage"] for stage in report["stages"] if stage["resumed"]] == ["vocabulary"]
    assert (ngram.scratch / "m.arpa").read_bytes() == ngram.train(text, "--order", 4, *FALLBACK_FLAGS)


def test_plan_is_that_of_the_estimator(ngram):
    text = random_text(61, sentences=900, words=150)
    (ngram.scratch / "text").write_bytes(text)
    done = configure(ngram.scratch, {"m": {"text": str(ngram.scratch / "text"), "order": 5, "shards": 24, "tau": 0.4, "levels": 4}})
    train.train_with(LocalEngine(ngram.binary), done)
    (path,) = (ngram.scratch / "work").glob("m.plan-*/plan.json")
    got = plan.Plan.from_json(json.loads(path.read_text()))
    ngram.ok("count", ngram.scratch / "text", "--order", 5, "--vocab", ngram.scratch / "vocab", "--out", ngram.scratch / "tuples")
    said = ngram.ok("plan", ngram.scratch / "tuples", "--shards", 24, "--tau", 0.4, "--levels", 4).decode().split("\n")
    lines = [" ".join(map(str, [*opened])) for opened in (level.opened.nonzero()[0].tolist() for level in got.levels)]
    want = [f"level {k + 1} shards {level.shards} opened {line}".strip() for k, (level, line) in enumerate(zip(got.levels, lines))]
    assert [line.strip() for line in said if line.startswith("level ")] == want and len(want) == 4


def test_every_part_has_a_partition_of_its_own():
    for partitions in (1, 2, 7, 64):
        assert [keys.murmur3(value) % partitions for value in keys.placement(partitions)] == list(range(partitions))


# ---- resumption ------------------------------------------------------------------------------------------------------------------------


def test_a_finished_stage_is_not_run_again_and_a_change_runs_what_it_changes(ngram):
    (ngram.scratch / "text").write_bytes(random_text(67))
    options = {"text": str(ngram.scratch / "text"), "order": 3}

    def resumed(**more) -> list[str]:
        report = train.train_with(LocalEngine(ngram.binary), configure(ngram.scratch, {"m": {**options, **more}}))
        return [stage["stage"] for stage in report["stages"] if stage["resumed"]]

    assert resumed() == []
    first = (ngram.scratch / "m.arpa").read_bytes()
    assert resumed() == ["vocabulary", "count", "plan", "adjust", "barrier", "estimate"]
    assert (ngram.scratch / "m.arpa").read_bytes() == first
    assert resumed(vocab_pad=1000) == ["vocabulary", "count", "plan", "adjust"]
    assert resumed(tau=0.5) == ["vocabulary", "count"]
    (ngram.scratch / "text").write_bytes(random_text(68))
    assert resumed() == []


def test_a_stage_that_failed_half_way_is_run_again(ngram, monkeypatch):
    (ngram.scratch / "text").write_bytes(random_text(71))
    done = configure(ngram.scratch, {"m": {"text": str(ngram.scratch / "text"), "order": 3}})

    class Failing(LocalEngine):
        def write(self, frame, uri, batch_rows=0):
            super().write(frame, uri, batch_rows)
            if ".adjust-" in uri:
                raise RuntimeError("the driver died")

    with pytest.raises(RuntimeError, match="the driver died"):
        train.train_with(Failing(ngram.binary), done)
    report = train.train_with(LocalEngine(ngram.binary, seed=2), done)
    assert [s["stage"] for s in report["stages"] if s["resumed"]] == ["vocabulary", "count", "plan"]
    want = ngram.train((ngram.scratch / "text").read_bytes(), "--order", 3, *FALLBACK_FLAGS)
    assert (ngram.scratch / "m.arpa").read_bytes() == want
