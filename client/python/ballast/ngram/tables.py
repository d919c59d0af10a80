"""The model as Parquet tables, where the driver writes them: `ngrams` (n, words, log_p, log_backoff) and `vocabulary` (id, word)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ballast.ngram import joining, rows


def write_vocabulary(uri: str, words: list[bytes]) -> None:
    """Words as text if all of them are."""
    column = pa.array(words, pa.binary())
    try:
        b"".join(words).decode()
        column = column.cast(pa.string())
    except UnicodeDecodeError:
        pass
    table = pa.table({"id": pa.array(np.arange(len(words), dtype=np.int32)), "word": column})
    fs, path = _folder(uri, "vocabulary")
    pq.write_table(table, f"{path}/part-0.parquet", filesystem=fs)


def write_model(uri: str, events: Iterator[rows.Event]) -> None:
    """Model rows, as `ballast-ngram arpa` writes them."""
    fs, path = _folder(uri, "ngrams")
    writer: Any = None
    for event in events:
        if isinstance(event, rows.Block):
            batch = joining.table_batch(event.n, event.rows)
            writer = writer or pq.ParquetWriter(f"{path}/part-0.parquet", batch.schema, filesystem=fs)
            writer.write_batch(batch)
    if writer is not None:
        writer.close()


def _folder(uri: str, name: str) -> tuple[Any, str]:
    """Empty: what was there before is gone."""
    remote = re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]*://", uri)
    fs, root = pafs.FileSystem.from_uri(uri if remote else "file://" + os.path.abspath(uri))
    path = f"{root}/{name}"
    if fs.get_file_info(path).type != pafs.FileType.NotFound:
        fs.delete_dir(path)
    fs.create_dir(path, recursive=True)
    return fs, path
