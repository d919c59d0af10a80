"""The fingerprint of a batch: how the coordinator sees that other rows came under the same identity.

Definition (docs/wire_format.md repeats it). All integers are 64-bit little-endian. The fingerprint of batch `seq` of a partition is

    XXH3-64, seeded with the fingerprint of batch seq - 1 (0 for seq 0), over
      for each column in the order of the run's schema:
        name in UTF-8, one byte 0, dtype's name ("int32"), one byte 0,
        number of dimensions (rows included), each dimension (rows first), the column's bytes as sent
      the digest of the row ids: XXH3-64 (seed 0), as 8 bytes, over
        integer ids:  each id as a signed 64-bit integer
        any other:    the length of each id's UTF-8 text (or bytes; instants in UTC), then all the texts one after another

The seed chains the batches of a partition: a row that changed anywhere changes every later fingerprint, so that comparing one batch
compares all before it. Ids are in it, so that rows with equal content which swapped places are still seen. Ids do not travel: a
worker cannot compute a fingerprint, it is a name that only equals itself. Runs with at_least_once carry 0 (their order may change).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import xxhash

from ballast.model import Column


def fingerprint(columns: Sequence[Column], data: Sequence[bytes], rows: int, id_digest: int, previous: int) -> int:
    """`data` are the columns' bytes; `id_digest` comes from `digest_integers` or `digest_texts`."""
    h = xxhash.xxh3_64(seed=previous)
    for column, content in zip(columns, data):
        dims = (rows, *column.shape)
        h.update(column.name.encode() + b"\0" + column.dtype.encode() + b"\0" + struct.pack(f"<{1 + len(dims)}Q", len(dims), *dims))
        h.update(content)
    h.update(struct.pack("<Q", id_digest))
    return h.intdigest()


def digest_integers(little_endian_int64: bytes) -> int:
    return xxhash.xxh3_64_intdigest(little_endian_int64)


def digest_texts(lengths_little_endian_int64: bytes, texts: bytes) -> int:
    h = xxhash.xxh3_64(lengths_little_endian_int64)
    h.update(texts)
    return h.intdigest()
