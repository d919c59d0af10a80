"""`python -m ballast.ngram train` on a real Spark: the same bytes as `ballast-ngram train`; what fails, and how it is said."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import sys

import numpy as np
import pytest
from ballast.errors import BallastError
from ballast.ngram import keys, train
from tests.ngram.application_test import configure
from tests.ngram.estimate_test import FALLBACK_FLAGS, random_text

pytest.importorskip("pyspark")


@pytest.fixture(scope="module")
def spark():
    """Two cores of this machine, each task three times; small splits, so that a small text has several."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    existing = SparkSession.getActiveSession()
    if existing is not None:  # Of another module of this process: one JVM has one session.
        existing.stop()
    builder = SparkSession.builder.master("local[2,3]").config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
    builder = builder.config("spark.sql.files.maxPartitionBytes", "9000").config("spark.sql.files.openCostInBytes", "0")
    session = builder.config("spark.sql.shuffle.partitions", "2").config("spark.driver.memory", "1g").getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture
def text(ngram) -> bytes:
    text = random_text(83, sentences=1500, words=150)
    (ngram.scratch / "text").write_bytes(text)
    return text


def _train(spark, ngram, out=None, **options) -> dict:
    options = {"text": str(ngram.scratch / "text"), "order": 4, "partitions": 3, **options}
    options = {key: value for key, value in options.items() if value is not None}
    done = configure(ngram.scratch, {"m": options}, estimator=str(ngram.binary), report=str(ngram.scratch / "report"))
    return train.train(done, spark, out)


def test_hashes_are_those_of_spark(spark):
    from pyspark.sql import functions as F

    draw = random.Random(5)
    words = [[draw.choice((0, 1, 2, draw.randrange(1 << 25))) for _ in range(3)] for _ in range(200)]
    frame = spark.createDataFrame(words, "a int, b int, c int")
    rows = frame.select("a", "b", "c", F.xxhash64("a", "b", "c").alias("x"), F.hash("a").alias("m")).collect()
    table = np.array([[r.a, r.b, r.c] for r in rows], dtype=np.uint32)
    chained = keys.xxhash64(table[:, 2], keys.xxhash64(table[:, 1], keys.xxhash64(table[:, 0])))
    assert chained.view(np.int64).tolist() == [r.x for r in rows]
    assert [keys.murmur3(r.a) for r in rows] == [r.m for r in rows]


def test_text_to_arpa_and_tables(spark, ngram, text: bytes):
    """Several splits, three levels, wildcard rows, the quirk; then the tables hold what the ARPA file says, and the report what was asked for."""
    options = {"order": 5, "cutoffs": [0, 0, 1], "compat": "lmplz", "shards": 12, "tau": 0.5, "tables": str(ngram.scratch / "tables")}
    report = _train(spark, ngram, **options)
    arpa = ngram.train(text, "--order", 5, "--prune", "0,0,1", "--compat", "lmplz", *FALLBACK_FLAGS)
    assert (ngram.scratch / "m.arpa").read_bytes() == arpa
    lines = [line.split("\t") for line in arpa.decode().splitlines() if "\t" in line]
    want = {(words, float(p), float(rest[0]) if rest else 0.0) for p, words, *rest in lines}
    names = {row.id: row.word for row in spark.read.parquet(str(ngram.scratch / "tables" / "vocabulary")).collect()}
    rows = spark.read.parquet(str(ngram.scratch / "tables" / "ngrams")).collect()
    assert all(len(row.words) == row.n for row in rows)
    got = {(" ".join(names[w] for w in row.words), row.log_p, row.log_backoff) for row in rows}
    assert {(w, float(np.float32(p)), float(np.float32(b))) for w, p, b in want} == got and len(rows) == len(lines)

    assert json.loads((ngram.scratch / "report" / "report.json").read_text()) == report
    (model,) = report["models"]
    assert model["iterations"] == 3 and [level["opened"] > 0 for level in model["levels"]] == [True, True, False]
    assert all(level["largest_kept"] <= 0.5 for level in model["levels"][:2])
    assert model["ngrams"] == [int(line.split(b"=")[1]) for line in arpa.split(b"\n") if line.startswith(b"ngram ")]
    stages = {stage["stage"]: stage for stage in report["stages"]}
    assert list(stages) == ["vocabulary", "count", "plan", "adjust", "barrier", "estimate", "arpa", "tables"]
    for name in ("count", "adjust", "estimate"):
        assert stages[name]["estimator_cpu_s"] > 0 and stages[name]["jvm_cpu_s"] > 0 and stages[name]["shuffle_write_bytes"] > 0
        assert 0 < stages[name]["cpu_s"] and stages[name]["reserved_cpu_s"] == pytest.approx(2 * stages[name]["latency_s"])
    page = (ngram.scratch / "report" / "report.html").read_text()
    assert page.count("<svg") == 3 and "http" not in page


@pytest.mark.parametrize("limited", [False, True])
def test_pipe_of_spark_gives_the_same_bytes(spark, ngram, text: bytes, limited: bool):
    limit = ngram.scratch / "list"
    limit.write_bytes(b"\n".join(f"w{i}".encode() for i in range(0, 150, 2)))
    _train(spark, ngram, carrier="pipe", shards=9, tau=0.6, limit_vocab=str(limit) if limited else None)
    flags = ["--limit-vocab", limit] if limited else []
    assert (ngram.scratch / "m.arpa").read_bytes() == ngram.train(text, "--order", 4, *flags, *FALLBACK_FLAGS)


def test_parquet_and_duplicates(spark, ngram, text: bytes):
    """Without an order of the text ids are others: the same lines. A duplicate sentence counts once if that is asked for."""
    lines = text.decode().split("\n")[:-1]
    spark.createDataFrame([(line,) for line in lines * 2] + [(None,)], "sentence string").write.parquet(str(ngram.scratch / "sentences"))
    _train(spark, ngram, text=None, parquet=str(ngram.scratch / "sentences"), column="sentence", deduplicate=True)
    got = (ngram.scratch / "m.arpa").read_bytes().split(b"\n")
    distinct = "".join(line + "\n" for line in dict.fromkeys(lines)).encode()
    assert sorted(got) == sorted(ngram.train(distinct, "--order", 4, *FALLBACK_FLAGS).split(b"\n"))


def test_sources_that_cannot_be_read(spark, ngram, text: bytes):
    with pytest.raises(BallastError, match=r"\[model.m\] text: there is nothing to read at .*/nowhere"):
        _train(spark, ngram, text=str(ngram.scratch / "nowhere"))
    with pytest.raises(BallastError, match=r"\[model.m\] table .*no_such_table"):
        _train(spark, ngram, text=None, table="no_such_table")
    spark.createDataFrame([(1,)], "number int").write.parquet(str(ngram.scratch / "numbers"))
    with pytest.raises(BallastError, match='has no column "text"; it has number'):
        _train(spark, ngram, text=None, parquet=str(ngram.scratch / "numbers"))
    with pytest.raises(BallastError, match="column number of .* is int; want one sentence a row"):
        _train(spark, ngram, text=None, parquet=str(ngram.scratch / "numbers"), column="number")


def test_a_source_that_changed_is_another_one(spark, ngram, text: bytes):
    """Text with a strange name; a view has no version that could be asked for: it is read again each time."""
    from ballast.ngram import config, sources

    def identity(**source) -> list:
        return sources.open_source(spark, config.Model("m", **source)).identity

    path = ngram.scratch / "a b+%20é.txt"
    path.write_bytes(text)
    first = identity(text=(str(path),))
    assert first == identity(text=(str(path),)) and first[-1][1] == len(text)
    path.write_bytes(text + text)
    assert identity(text=(str(path),)) != first
    spark.createDataFrame([("a b",)], "text string").createOrReplaceTempView("sentences")
    assert identity(table="sentences") != identity(table="sentences")


def _wrapped(ngram, script: str) -> None:
    """An estimator that does something else first."""
    wrapper = ngram.scratch / "ballast-ngram"
    wrapper.write_text(f"#!/bin/bash\n{script}\nexec {ngram.binary} \"$@\"\n")
    wrapper.chmod(0o755)
    ngram.binary, ngram.real = wrapper, ngram.binary


def test_a_killed_estimator_is_started_again(spark, ngram, text: bytes):
    """Once in each stage, in the midst of its input: the task fails, its next attempt gives the same bytes."""
    kill = f'mkdir {ngram.scratch}/killed.$1 2>/dev/null && {{ head -c 99 >/dev/null; kill -9 $$; }}'
    on_executor = '[[ $1 = join || ! -f $2 ]] && [[ $1 =~ ^(count|combine|adjust|estimate|join)$ ]]'  # The driver's commands read files.
    _wrapped(ngram, f"{on_executor} && {kill}")
    _train(spark, ngram, shards=9, tau=0.6)
    assert {path.name for path in ngram.scratch.glob("killed.*")} == {f"killed.{name}" for name in ("count", "combine", "adjust", "estimate", "join")}
    ngram.binary = ngram.real
    assert (ngram.scratch / "m.arpa").read_bytes() == ngram.train(text, "--order", 4, *FALLBACK_FLAGS)


def test_an_estimator_that_always_fails_fails_the_job_with_its_message(spark, ngram, text: bytes):
    _wrapped(ngram, '[ "$1" = combine ] && { echo "the disk is on fire" >&2; exit 1; }')
    with pytest.raises(BallastError, match="ballast-ngram.* combine failed with status 1 on .*: the disk is on fire") as failed:
        _train(spark, ngram)
    assert failed.value.reason == "ESTIMATOR_FAILED"
    assert not (ngram.scratch / "m.arpa").exists()


def test_an_estimator_that_did_not_arrive_is_named(spark, ngram, text: bytes):
    from pyspark import SparkFiles

    _wrapped(ngram, ": another binary")
    name = f"ballast-ngram-{hashlib.sha256(ngram.binary.read_bytes()).hexdigest()[:16]}"

    class Removing:
        """Removes it as soon as the first stage is said to be done."""

        def write(self, text: str) -> None:
            if "vocabulary" in text:
                (pathlib.Path(SparkFiles.getRootDirectory()) / name).unlink()

        def flush(self) -> None:
            pass

    with pytest.raises(BallastError, match=rf"the estimator \({name}\) is not on the executor") as failed:
        _train(spark, ngram, out=Removing())
    assert failed.value.reason == "ESTIMATOR_NOT_FOUND"


def test_what_travels_with_its_code_does_so_only_meanwhile(spark, ngram, text: bytes):
    """ballast.spark in the same process, later: its tasks did not catch their own errors, whose class had travelled as a copy."""
    from pyspark import cloudpickle

    _train(spark, ngram, shards=3)
    assert not [name for name in cloudpickle.list_registry_pickle_by_value() if name.startswith("ballast")]
