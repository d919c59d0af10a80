"""Keys of tuples, many at a time: hashes, lengths, what a tuple shares with the one before; and which hash puts a row into which partition.

Both hashes are Spark's own: xxhash64 of integer columns for shards (docs/NGRAM.md, "Levels"), Murmur3 where Spark partitions by a column.
Pure functions over numpy arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ballast.ngram.rows import BOS

SEED = 42
_P1, _P2, _P3, _P5 = (np.uint64(p) for p in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5))


def xxhash64(words: Any, seed: Any = SEED) -> Any:
    """XXH64 of one word each; `seed` is a number, or the hash of the words before (then this is the hash of the chain)."""
    with np.errstate(over="ignore"):
        h = np.asarray(seed, dtype=np.uint64) + _P5 + np.uint64(4)
        h = h ^ (words.astype(np.uint64) * _P1)
        h = ((h << np.uint64(23)) | (h >> np.uint64(41))) * _P2 + _P3
        h = (h ^ (h >> np.uint64(33))) * _P2
        h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


def pmod(hashes: Any, divisor: int) -> Any:
    return hashes.view(np.int64) % np.int64(divisor)


def gram_lengths(tuples: Any) -> Any:
    """Order of the longest n-gram of each tuple: <s> counts once, in front."""
    n = tuples.shape[1]
    lengths = np.full(len(tuples), n, dtype=np.int8)
    for i in range(n - 1, 0, -1):
        lengths[tuples[:, i] == BOS] = i + 1
    return lengths


def shared_words(tuples: Any, before: Any) -> Any:
    """How many words from the last one on each tuple shares with the one of `before` at the same place."""
    same = np.ones(len(tuples), dtype=bool)
    shared = np.zeros(len(tuples), dtype=np.int8)
    for i in range(tuples.shape[1]):
        same &= tuples[:, i] == before[:, i]
        if not same.any():
            break
        shared += same
    return shared


def murmur3(value: int) -> int:
    """Spark's hash() of an integer, as a signed number."""
    mask = 0xFFFFFFFF
    k = (value & mask) * 0xCC9E2D51 & mask
    k = (k << 15 | k >> 17) & mask
    h = SEED ^ (k * 0x1B873593 & mask)
    h = (h << 13 | h >> 19) & mask
    h = (h * 5 + 0xE6546B64) & mask ^ 4
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ h >> shift) * factor & mask
    h ^= h >> 16
    return h - (1 << 32) if h >> 31 else h


def placement(partitions: int) -> tuple[int, ...]:
    """[partition]: a number that df.repartition(partitions, column) sends there. So each part is a partition of its own, without an RDD."""
    found: dict[int, int] = {}
    value = 0
    while len(found) < partitions:
        found.setdefault(murmur3(value) % partitions, value)
        value += 1
    return tuple(found[i] for i in range(partitions))
