"""The words of a text: what separates them, which are reserved, and a task that finds the distinct ones with where they appear first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ballast.errors import BallastError
from ballast.ngram import blocks

RESERVED = (b"<unk>", b"<s>", b"</s>")
# One sentence a row; `entry`, `file` and `start` say where it is, for sources that have an order.
LINES = "value binary, entry int, file long, start long"
# Words by first appearance in a split of the text; without a word: a task's meter and number of sentences.
WORDS = "word binary, entry int, file long, start long, place long, sentences long, extra binary"
_ARROW = pa.schema(
    [("word", pa.binary())] + [(name, pa.int32() if name == "entry" else pa.int64()) for name in ("entry", "file", "start", "place", "sentences")]
    + [("extra", pa.binary())]
)
_TO_SPACE = bytes.maketrans(b"\0\t\r\n", b"    ")


def joined(values: Any) -> bytes:
    """Sentences as lines. A line feed inside of one is white space, as it is between its words."""
    values = values.drop_null()
    if len(values) == 0:
        return b""
    values = pc.replace_substring(values, b"\n", b" ")
    lists = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    text: bytes = pc.binary_join(lists, b"\n")[0].as_py()
    return text + b"\n"


def find_words(skip_symbols: bool) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """LINES to WORDS."""

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        meter = blocks.Meter()
        sentences = 0
        splits: dict[tuple[int, int, int], dict[bytes, int]] = {}
        for batch in batches:
            places = [batch.column(i).to_numpy(zero_copy_only=False) for i in (1, 2, 3)]
            changes = np.flatnonzero(sum((column[1:] != column[:-1]).astype(int) for column in places)) + 1
            cuts = [0, *changes.tolist(), batch.num_rows]
            for begin, stop in zip(cuts, cuts[1:]):
                if begin == stop:
                    continue
                seen = splits.setdefault((int(places[0][begin]), int(places[1][begin]), int(places[2][begin])), {})
                values = batch.column(0).slice(begin, stop - begin)
                sentences += len(values) - values.null_count
                for word in dict.fromkeys(joined(values).translate(_TO_SPACE).split(b" ")):
                    seen.setdefault(word, len(seen))
        for split, seen in splits.items():
            seen.pop(b"", None)
            for word in RESERVED:
                if word in seen and not skip_symbols:
                    name = word.decode()
                    message = f"the text holds the word {name}, which has a meaning of its own; skip_symbols = true takes it as white space"
                    raise BallastError("RESERVED_WORD", message, {"word": name})
                seen.pop(word, None)
            if seen:
                n = len(seen)
                where = [pa.array([value] * n, field.type) for value, field in zip(split, list(_ARROW)[1:4])]
                places_in_split = pa.array(list(seen.values()), pa.int64())
                yield pa.record_batch(
                    [pa.array(list(seen), pa.binary()), *where, places_in_split, pa.nulls(n, pa.int64()), pa.nulls(n, pa.binary())], schema=_ARROW
                )
        yield pa.record_batch([pa.array([v], f.type) for v, f in zip((None, 0, 0, 0, 0, sentences, meter.json("words")), _ARROW)], schema=_ARROW)

    return blocks.guarded(task)  # type: ignore[no-any-return]


def split(text: bytes) -> set[bytes]:
    return set(text.translate(_TO_SPACE).split(b" ")) - {b""}


def marks(listed: set[bytes], known: list[bytes]) -> bytes:
    """A file for the estimator: which words n-grams may have. `known` are all words, in the order of their ids; the reserved ones always are."""
    return b"1" * len(RESERVED) + bytes(b"01"[word in listed] for word in known) + b"\n"


def vocabulary_file(words: list[bytes]) -> bytes:
    """In the order of their ids."""
    return b"".join(word + b"\n" for word in (*RESERVED, *words))
