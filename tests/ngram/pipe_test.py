"""What the Spark application asks of the estimator's commands: several shards in one pipe, lines of base64, ids of a vocabulary, model rows."""

from __future__ import annotations

import base64

import pytest
from ballast.ngram import rows
from tests.ngram.estimate_test import FALLBACK_FLAGS, random_text
from tests.ngram.shards_test import ORDER, Pipeline


@pytest.fixture
def run(ngram) -> Pipeline:
    run = Pipeline(ngram, random_text(37, sentences=500), 6, 0.5, 3)
    run.adjust()
    run.discounts(*FALLBACK_FLAGS)
    run.estimate_zero()
    return run


def _events(stream: bytes) -> list[rows.Event]:
    at = [0]

    def read(size: int) -> bytes:
        at[0] += size
        return stream[at[0] - size : at[0]]

    return list(rows.read_streams(read))


def test_shards_in_one_pipe_are_the_shards_one_by_one(ngram, run: Pipeline):
    shards = [shard.read_bytes() for shard in run.shards]
    assert len(shards) > 6
    assert ngram.ok("adjust", stdin=b"".join(shards)) == b"".join(ngram.ok("adjust", stdin=shard) for shard in shards)
    zero = [event for level in (1, 2, 3) for event in _events((run.folder / f"zero.{level}.p").read_bytes()) if isinstance(event, rows.Block)]
    together = b"".join(rows.stream(ORDER, 0, [rows.block(b.kind, b.n, b.rows) for b in zero]))
    (run.folder / "zero.p").write_bytes(together)
    run.estimate()
    one_by_one = [(run.folder / f"estimated.{shard.name}").read_bytes() for shard in run.shards]
    flags = ["--head", run.folder / "head", "--zero", run.folder / "zero.p"]
    assert ngram.ok("estimate", *flags, stdin=b"".join(shards)) == b"".join(one_by_one)
    (ngram.scratch / "two").write_bytes(shards[0] + shards[1])
    assert "--out takes the result of one shard" in ngram.error("adjust", ngram.scratch / "two", "--out", ngram.scratch / "out")


def test_lines_of_base64_carry_the_same_streams(ngram, run: Pipeline):
    shards = b"".join(shard.read_bytes() for shard in run.shards)
    for width in (3, 99, 1 << 20):
        lines = b"".join(base64.b64encode(shards[at : at + width]) + b"\n" for at in range(0, len(shards), width))
        out = b"".join(base64.b64decode(line) for line in ngram.ok("adjust", "--lines", stdin=lines).split(b"\n"))
        assert out == ngram.ok("adjust", stdin=shards)
        assert ngram.ok("adjust", "--lines", stdin=lines.removesuffix(b"\n")) == ngram.ok("adjust", "--lines", stdin=lines)
    assert "no base64" in ngram.error("adjust", "--lines", stdin=b"????\n")
    assert "cut off" in ngram.error("adjust", "--lines", stdin=base64.b64encode(shards[:-9]) + b"\n")


def test_a_shard_given_twice_is_an_error_of_discounts(ngram, run: Pipeline):
    """Its counts would enter twice, and the model be another one without a word."""
    adjusted = [run.folder / f"adjusted.{shard.name}" for shard in run.shards]
    assert "given twice" in ngram.error("discounts", *adjusted, adjusted[2], *FALLBACK_FLAGS)


def test_combine_sorts_and_adds_up(ngram):
    text = random_text(5)
    (ngram.scratch / "text").write_bytes(text)
    (ngram.scratch / "twice").write_bytes(text + text)
    for name in ("text", "twice"):
        ngram.ok("count", ngram.scratch / name, "--order", 3, "--vocab", ngram.scratch / "vocab", "--out", ngram.scratch / f"{name}.tuples")
    blocks = [e for e in _events((ngram.scratch / "text.tuples").read_bytes()) if isinstance(e, rows.Block)]
    parts = [rows.block("t", 3, block.rows[::-1]) for block in blocks for _ in (1, 2)]
    got, want = ngram.ok("combine", stdin=b"".join(rows.stream(3, 0, parts))), (ngram.scratch / "twice.tuples").read_bytes()
    assert got == want


def test_ids_of_a_vocabulary(ngram):
    (ngram.scratch / "text").write_bytes(b"b a\nc b\n")
    (ngram.scratch / "ids").write_bytes(b"<unk>\n<s>\n</s>\na\nb\nc\nd\n")
    found = [e for e in _events(ngram.ok("count", ngram.scratch / "text", "--order", 2, "--ids", ngram.scratch / "ids")) if isinstance(e, rows.Block)]
    assert [row.tolist() for row in found[0].rows] == [[2, 3, 1, 0], [2, 4, 1, 0], [3, 4, 1, 0], [4, 1, 1, 0], [4, 5, 1, 0], [5, 1, 1, 0]]
    (ngram.scratch / "ids").write_bytes(b"<unk>\n<s>\n</s>\na\nb\n")
    message = ngram.error("count", ngram.scratch / "text", "--order", 2, "--ids", ngram.scratch / "ids")
    assert "the word c of" in message and "line 2" in message and "is not in" in message
    assert "either --vocab" in ngram.error("count", ngram.scratch / "text", "--order", 2)


def test_join_gives_rows_beside_the_arpa_file(ngram, run: Pipeline):
    run.estimate()
    arpa = run.join()
    files = [*run.folder.glob("zero.*.p"), *run.folder.glob("estimated.*")]
    ngram.ok("join", *files, "--vocab", run.folder / "vocab", "--rows", run.folder / "rows")
    ngram.ok("arpa", run.folder / "rows", "--from-rows", "--vocab", run.folder / "vocab", "--out", run.folder / "again")
    assert (run.folder / "again").read_bytes() == arpa


def test_rows_that_are_cut_off_are_no_rows(ngram, run: Pipeline):
    stream = (run.folder / "zero.1.p").read_bytes()
    assert isinstance(_events(stream)[-1], rows.End)
    for cut in (1, 8, 9, len(stream) - 20):
        with pytest.raises(Exception, match="cut off"):
            _events(stream[:-cut])
