"""What users do wrong, and what the estimator says to it: one line that names the cause and the way out."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
from tests.ngram.estimate_test import FALLBACK_FLAGS, random_text


def _train(ngram, text: bytes, *flags) -> str:
    (ngram.scratch / "text").write_bytes(text)
    return ngram.error("train", ngram.scratch / "text", "--out", ngram.scratch / "arpa", *flags)


@pytest.mark.parametrize("word", ["<s>", "</s>", "<unk>"])
def test_reserved_word_names_file_line_and_flag(ngram, word: str):
    message = _train(ngram, f"a b\nc {word} d\n".encode(), "--order", 3)
    assert "text line 2" in message and word in message and "--skip-symbols" in message
    assert not (ngram.scratch / "arpa").exists()


def test_skip_symbols_takes_reserved_words_as_white_space(ngram):
    with_symbols = ngram.train(b"<s> a b </s>\na <unk> c\n", "--order", 2, "--skip-symbols", *FALLBACK_FLAGS)
    assert with_symbols == ngram.train(b"a b\na c\n", "--order", 2, *FALLBACK_FLAGS)


def test_empty_text(ngram):
    assert "empty" in _train(ngram, b"", "--order", 3)


def test_missing_text(ngram):
    assert "nowhere" in ngram.error("train", ngram.scratch / "nowhere", "--out", ngram.scratch / "arpa")


def test_too_small_a_text_names_order_count_and_remedy(ngram):
    message = _train(ngram, b"r o t\no a r\no a t\n", "--order", 3)
    assert "order 1" in message and "D1" not in message.split(":")[0]
    for part in ("n1 ", "n2 ", "n3 ", "n4 ", "duplicate", "--discount-fallback"):
        assert part in message, message


def test_thresholds_that_decrease(ngram):
    message = _train(ngram, b"a\n", "--order", 3, "--prune", "0,2,1")
    assert "decrease" in message and "0 2 1" in message


def test_limited_vocabulary_without_a_word_of_the_text(ngram):
    (ngram.scratch / "list").write_bytes(b"x y\n<unk>\n")
    message = _train(ngram, b"a b\n", "--order", 2, "--limit-vocab", ngram.scratch / "list")
    assert "list holds no word of the text" in message
    assert "nowhere" in _train(ngram, b"a b\n", "--order", 2, "--limit-vocab", "nowhere")


def test_marks_of_allowed_words_that_are_none(ngram):
    (ngram.scratch / "marks").write_bytes(b"1110x\n")
    assert "marks is no list of allowed words" in ngram.error("adjust", "--allowed", ngram.scratch / "marks", stdin=b"")
    assert "--allowed" in ngram.error("count", "-", "--vocab", ngram.scratch / "v", "--limit-vocab", ngram.scratch / "marks", stdin=b"a\n")


def test_more_thresholds_than_orders(ngram):
    assert "4 thresholds" in _train(ngram, b"a\n", "--order", 3, "--prune", "0,0,0,1")


@pytest.mark.parametrize(("flag", "meant"), [("--ordr", "--order"), ("--discount_fallback", "--discount-fallback"), ("--prunes", "--prune")])
def test_unknown_flag_names_the_nearest(ngram, flag: str, meant: str):
    assert f"did you mean {meant}?" in ngram.error("train", flag, "3")


def test_unknown_command_names_the_nearest(ngram):
    assert "did you mean estimate?" in ngram.error("estimat")


@pytest.mark.parametrize("order", ["1", "9", "x"])
def test_impossible_order(ngram, order: str):
    assert "from 2 to 8" in _train(ngram, b"a\n", "--order", order)


def test_a_shard_that_was_cut_off_is_no_shard(ngram):
    (ngram.scratch / "text").write_bytes(random_text(1))
    ngram.ok("count", ngram.scratch / "text", "--order", 3, "--vocab", ngram.scratch / "vocab", "--out", ngram.scratch / "tuples")
    whole = (ngram.scratch / "tuples").read_bytes()
    for cut in (8, 9, 100):
        assert "cut off" in ngram.error("adjust", stdin=whole[:-cut])
    assert "head" in ngram.error("adjust", stdin=b"")
    assert "no block begins here" in ngram.error("adjust", stdin=whole[: whole.index(b"\n\n") + 2] + b"?" * 100)


def test_rows_before_the_barrier_are_not_estimated(ngram):
    head = b"ballast-ngram 1\norder 3\nlevel 1\n\n"
    assert "no discounts" in ngram.error("estimate", stdin=head + b"e" + bytes(7))


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_an_error(ngram):
    (ngram.scratch / "text").write_bytes(random_text(2))
    flags = ["--order", "3", *FALLBACK_FLAGS, "--out", "-"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run([ngram.binary, "train", ngram.scratch / "text", *flags], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"No space left" in done.stderr


def test_full_disk_leaves_no_file_under_the_final_name(ngram):
    """A limit on the size of files stands for the disk: the write fails half way."""
    (ngram.scratch / "text").write_bytes(random_text(2, sentences=2000))
    command = f"trap '' XFSZ; ulimit -f 16; exec {ngram.binary} train {ngram.scratch}/text --order 3 --out {ngram.scratch}/arpa"
    done = subprocess.run(["bash", "-c", command + " --discount-fallback 0.5"], capture_output=True, env={"TMPDIR": str(ngram.scratch)})
    assert done.returncode == 1 and b"cannot write" in done.stderr
    assert sorted(path.name for path in ngram.scratch.iterdir()) == ["text"]
