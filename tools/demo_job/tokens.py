"""Text to token ids, in Spark: the words of a package's name and of its description, 32 ids a row.

0 is padding, 1 an unknown word, 2.. the most frequent words of the training rows. The held-out fifth is crc32(name) % 5 == 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

NAME_WORD = "[a-z0-9]+"
TEXT_WORD = "[a-z0-9+#.-]*[a-z0-9+#]"


def with_words(packages: DataFrame) -> DataFrame:
    """Adds `words` (array<string>) and `held_out` (boolean)."""
    from pyspark.sql import functions as F

    words = F.concat(
        F.expr(f"regexp_extract_all(lower(name), '{NAME_WORD}', 0)"),
        F.expr(f"regexp_extract_all(lower(description), '{TEXT_WORD}', 0)"),
    )
    return packages.withColumn("words", words).withColumn("held_out", F.crc32("name") % 5 == 0)


def vocabulary(words: DataFrame, size: int) -> dict[str, int]:
    """Ids of the most frequent words of the training rows; ties in alphabetical order, so that every run makes the same ids."""
    from pyspark.sql import functions as F

    counts = words.where("not held_out").select(F.explode("words").alias("word")).groupBy("word").count()
    top = counts.orderBy(F.desc("count"), "word").limit(size - 2).collect()
    return {row["word"]: i + 2 for i, row in enumerate(top)}


def encode(words: DataFrame, ids: dict[str, int], labels: dict[str, int], tokens: int) -> DataFrame:
    """(id, tokens array<int>[tokens], label, held_out)."""

    def to_ids(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            rows = [([ids.get(w, 1) for w in row or ["?"]][:tokens] + [0] * tokens)[:tokens] for row in batch.column("words").to_pylist()]
            label = [labels[s] for s in batch.column("section").to_pylist()]
            yield pa.RecordBatch.from_arrays(
                [batch.column("id"), pa.array(rows, pa.list_(pa.int32())), pa.array(label, pa.int64()), batch.column("held_out")],
                ["id", "tokens", "label", "held_out"],
            )

    return words.mapInArrow(to_ids, "id long, tokens array<int>, label long, held_out boolean")
