"""The stages one by one, as Spark drives them: any number of shards, threshold and level limit give the bytes of the unsharded run."""

from __future__ import annotations

import pathlib
import random
import struct

import pytest
from tests.ngram.estimate_test import FALLBACK_FLAGS, random_text

ORDER = 5


def _levels(plan: bytes) -> list[tuple[int, list[int]]]:
    """Shards and opened shards of each level."""
    rows = [line.split() for line in plan.decode().splitlines() if line.startswith("level ")]
    return [(int(row[3]), [int(shard) for shard in row[5:]]) for row in rows]


class Pipeline:
    """One run of the stages over files; a shard travels through standard input and output of its own process."""

    def __init__(self, ngram, text: bytes, shards: int, tau: float, levels: int):
        self.ngram = ngram
        self.folder = ngram.scratch / f"run.{shards}.{tau}.{levels}"
        for name in ("shards", "zero"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "text").write_bytes(text)
        ngram.ok("count", self.folder / "text", "--order", ORDER, "--vocab", self.folder / "vocab", "--out", self.folder / "tuples")
        flags = ["--shards", shards, "--tau", tau, "--levels", levels, "--split", self.folder / "shards"]
        self.plan = _levels(ngram.ok("plan", self.folder / "tuples", *flags))
        self.shards = sorted((self.folder / "shards").iterdir())

    def adjust(self, *flags) -> list[pathlib.Path]:
        for shard in self.shards:
            (self.folder / f"adjusted.{shard.name}").write_bytes(self.ngram.ok("adjust", *flags, stdin=shard.read_bytes()))
        return [self.folder / f"adjusted.{shard.name}" for shard in self.shards]

    def discounts(self, *flags) -> None:
        adjusted = [self.folder / f"adjusted.{shard.name}" for shard in self.shards]
        (self.folder / "head").write_bytes(self.ngram.ok("discounts", *adjusted, "--zero", self.folder / "zero", *flags))

    def estimate_zero(self) -> None:
        for level in range(1, len(self.plan) + 1):
            below = ["--zero", self.folder / f"zero.{level - 1}.p"] if level > 1 else []
            shard = (self.folder / "zero" / f"zero.{level}").read_bytes()
            (self.folder / f"zero.{level}.p").write_bytes(self.ngram.ok("estimate", *below, stdin=shard))

    def estimate(self, source: str = "") -> None:
        for shard in self.shards:
            level = shard.name.split(".")[0]
            flags = ["--head", self.folder / "head", "--zero", self.folder / f"zero.{level}.p"]
            rows = self.ngram.ok("estimate", *flags, stdin=(shard if not source else self.folder / f"{source}.{shard.name}").read_bytes())
            (self.folder / f"estimated.{shard.name}").write_bytes(rows)

    def join(self) -> bytes:
        rows = [*self.folder.glob("zero.*.p"), *self.folder.glob("estimated.*")]
        self.ngram.ok("join", *rows, "--vocab", self.folder / "vocab", "--out", self.folder / "arpa")
        return (self.folder / "arpa").read_bytes()


@pytest.mark.parametrize(("shards", "tau", "levels"), [(1, 2, 3), (5, 0.3, 4), (16, 2, 1), (16, 0.05, 2)])
def test_stages_over_shards_give_the_bytes_of_the_unsharded_run(ngram, shards: int, tau: float, levels: int):
    text = random_text(17, sentences=400, words=60)
    flags = ["--compat", "lmplz", "--prune", "0,0,1", *FALLBACK_FLAGS]
    run = Pipeline(ngram, text, shards, tau, levels)
    run.adjust()
    run.discounts(*flags)
    run.estimate_zero()
    run.estimate()
    assert len(run.plan) > 1 or tau == 2
    assert run.join() == ngram.train(text, "--order", ORDER, *flags)


def test_wildcard_rows_stand_for_all_pruned_ngrams(ngram):
    """Kept n-grams and one row for the pruned ones of a context estimate the same model as the tuples, with fewer rows."""
    text = random_text(19, sentences=800, words=120)
    flags = ["--prune", "0,0,1,1,2", *FALLBACK_FLAGS]
    run = Pipeline(ngram, text, 4, 0.5, 3)
    adjusted = run.adjust("--collapse", "--prune", "0,0,1,1,2")
    run.discounts(*flags)
    run.estimate_zero()
    for path in adjusted:
        collapsed = [block for block in _blocks(path.read_bytes()) if block[0] in (b"c", b"w")]
        level = int(path.name.split(".")[1])
        head = path.read_bytes().split(b"\n\n")[0] + b"\n\n"
        kept = [block for block in collapsed if block[1] > level or block[0] == b"w"]
        rows = sum(block[2] for block in kept)
        body = b"".join(block[3] for block in kept) + struct.pack("<BBHI", ord("e"), 0, 0, rows)
        (run.folder / f"collapsed.{path.name.removeprefix('adjusted.')}").write_bytes(head + body)
    run.estimate("collapsed")
    assert run.join() == ngram.train(text, "--order", ORDER, *flags)


def _blocks(stream: bytes):
    """(kind, order, rows, bytes) of each block of a row stream: docs/NGRAM.md, "Rows"."""
    at = stream.index(b"\n\n") + 2
    while True:
        kind, n, _, rows = struct.unpack_from("<BBHI", stream, at)
        kind = bytes([kind])
        if kind == b"e":
            return
        values = {b"t": 8, b"c": 16, b"p": 4, b"b": 4, b"w": 8, b"m": 8, b"n": 32, b"l": 16 * (n - 1)}[kind]
        end = at + 8 + rows * (values + (0 if kind == b"n" else 4 * n))
        yield kind, n, rows, stream[at:end]
        at = end


def test_unsorted_tuples_of_a_shard_are_sorted_and_added_up(ngram):
    """Spark need not sort, and a count may come in parts."""
    text = random_text(29)
    run = Pipeline(ngram, text, 1, 2, 1)
    (shard,) = run.shards
    head = shard.read_bytes().split(b"\n\n")[0] + b"\n\n"
    tuples = []
    for _, n, rows, block in _blocks(shard.read_bytes()):
        width = 4 * n + 8
        tuples += [block[8 + i * width : 8 + (i + 1) * width] for i in range(rows)]
    parts = []
    for row in tuples:
        (count,) = struct.unpack("<Q", row[-8:])
        parts += [row[:-8] + struct.pack("<Q", part) for part in ((1, count - 1) if count > 1 else (1,))]
    random.Random(29).shuffle(parts)
    frame = struct.pack("<BBHI", ord("t"), ORDER, 0, len(parts))
    shuffled = head + frame + b"".join(parts) + struct.pack("<BBHI", ord("e"), 0, 0, len(parts))
    assert ngram.ok("adjust", stdin=shuffled) == ngram.ok("adjust", stdin=shard.read_bytes())


def test_join_refuses_rows_that_are_not_sorted(ngram):
    """Merged as if they were, they could lose backoffs without a word."""
    run = Pipeline(ngram, random_text(37), 1, 2, 1)
    run.adjust()
    run.discounts(*FALLBACK_FLAGS)
    run.estimate_zero()
    run.estimate()
    (path,) = run.folder.glob("estimated.*")
    stream = path.read_bytes()
    rows = {(kind, n): block for kind, n, _, block in _blocks(stream)}
    block = rows[b"p", 3]
    width = 4 * 3 + 4
    (count,) = struct.unpack_from("<I", block, 4)
    one_by_one = [struct.pack("<BBHI", ord("p"), 3, 0, 1) + block[8 + i * width : 8 + (i + 1) * width] for i in range(count)]
    for damaged in (block[:8] + block[8 + width : 8 + 2 * width] + block[8 : 8 + width] + block[8 + 2 * width :], b"".join(one_by_one[::-1])):
        path.write_bytes(stream.replace(block, damaged))
        with pytest.raises(AssertionError, match="suffix order|has no n-gram"):
            run.join()


def test_a_missing_shard_is_an_error_of_join(ngram):
    run = Pipeline(ngram, random_text(37), 4, 2, 1)
    run.adjust()
    run.discounts(*FALLBACK_FLAGS)
    run.estimate_zero()
    run.estimate()
    max(run.folder.glob("estimated.*"), key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(AssertionError, match="has no n-gram"):
        run.join()


def test_plan_says_how_even_the_shards_are(ngram):
    run = Pipeline(ngram, random_text(31, sentences=2000, words=300), 16, 2, 3)
    said = ngram.run("plan", run.folder / "tuples", "--shards", 16, "--tau", 2, "--levels", 4).stderr.decode().splitlines()
    assert len(said) >= 2 and said[0].startswith("level 1: 16 shards of ")
    assert all(float(line.split()[-4]) <= 2.0 for line in said), said


def test_shards_of_a_plan_hold_every_tuple_once(ngram):
    run = Pipeline(ngram, random_text(31), 7, 0.5, 4)

    def tuples(path: pathlib.Path) -> list[bytes]:
        found = []
        for _, n, rows, block in _blocks(path.read_bytes()):
            width = 4 * n + 8
            found += [block[8 + i * width : 8 + (i + 1) * width] for i in range(rows)]
        return found

    everything = tuples(run.folder / "tuples")
    assert sorted(row for shard in run.shards for row in tuples(shard)) == sorted(everything)
