"""Interpolated modified Kneser-Ney written down once more, from the definitions of docs/NGRAM.md alone: dictionaries of tuples of words, no shards,
no sorting tricks, float32 by numpy. Slow; the estimator is compared with it, number by number."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np

F = np.float32
BOS, EOS, UNK = b"<s>", b"</s>", b"<unk>"


def sentences(text: bytes) -> list[list[bytes]]:
    lines = text.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [[word for word in re.split(rb"[\0\t\r ]+", line) if word] for line in lines]


class Model:
    """p and backoff of every kept n-gram as float32, by tuple of words."""

    def __init__(self, text: bytes, order: int, *, prune=(), limit=None, fallback=None, compat=False, vocab_pad=0, interpolate_unigrams=True):
        self.order = order
        self.thresholds = (list(prune) or [0]) + [list(prune)[-1] if prune else 0] * order
        self.limit = None if limit is None else {UNK, BOS, EOS, *limit}
        self._count(sentences(text))
        self._adjust()
        self.discounts = [self._discounts(n, self._census(n, compat), fallback) for n in range(1, order + 1)]
        self._smooth(vocab_pad, interpolate_unigrams)

    def _count(self, lines: list[list[bytes]]) -> None:
        self.ids = {UNK: 0, BOS: 1, EOS: 2}
        self.tuples = Counter()
        for words in lines:
            for word in words:
                self.ids.setdefault(word, len(self.ids))
            padded = [BOS] * (self.order - 1) + words + [EOS]
            for end in range(self.order, len(padded) + 1):
                self.tuples[tuple(padded[end - self.order : end])] += 1

    def _suffixes(self, padded: tuple) -> list[tuple]:
        while len(padded) > 1 and padded[1] == BOS:
            padded = padded[1:]
        return [padded[-n:] for n in range(1, len(padded) + 1)]

    def _adjust(self) -> None:
        self.raw = [Counter() for _ in range(self.order + 1)]
        for padded, count in self.tuples.items():
            for gram in self._suffixes(padded):
                self.raw[len(gram)][gram] += count
        self.adjusted = [dict() for _ in range(self.order + 1)]
        self.adjusted[self.order] = dict(self.raw[self.order])
        for n in range(1, self.order):
            before = Counter(gram[1:] for gram in self.raw[n + 1])
            self.adjusted[n] = {gram: count if gram[0] == BOS else before[gram] for gram, count in self.raw[n].items()}

    def _census(self, n: int, compat: bool) -> list[int]:
        counts = dict(self.adjusted[n])
        if compat and n < self.order:
            last = max(self.tuples, key=lambda padded: [self.ids[word] for word in reversed(padded)])
            for gram in self._suffixes(last):
                if len(gram) == n:
                    counts[gram] = self.raw[n][gram]
        found = Counter(counts.values())
        return [found[j] for j in (1, 2, 3, 4)]

    def _discounts(self, n: int, census: list[int], fallback) -> list:
        n1, n2, n3, _ = census
        if n1 and n2 and n3:
            y = F(n1) / F(n1 + 2 * n2)
            found = [F(j) - F(j + 1) * y * F(census[j]) / F(census[j - 1]) for j in (1, 2, 3)]
            if all(0 <= d <= j for j, d in enumerate(found, start=1)):
                return [F(0), *found]
        if fallback is None:
            raise ValueError(f"no discounts for order {n}: {census}")
        values = list(fallback) + [fallback[-1]] * 3
        return [F(0), *(F(d) for d in values[:3])]

    def _pruned(self, gram: tuple) -> bool:
        if len(gram) == 1 and gram[0] in (UNK, BOS, EOS):
            return False
        if self.limit is not None and not self.limit.issuperset(gram):
            return True
        return self.raw[len(gram)][gram] <= self.thresholds[len(gram) - 1]

    def _smooth(self, vocab_pad: int, interpolate_unigrams: bool) -> None:
        self.p, self.backoff = {}, {}
        self.adjusted[1].setdefault((UNK,), 0)
        self.adjusted[1].setdefault((BOS,), 0)
        everything = {}
        for n in range(1, self.order + 1):
            children = defaultdict(list)
            for gram in self.adjusted[n]:
                children[gram[:-1]].append(gram)
            for context, grams in children.items():
                self._smooth_context(n, context, grams, everything, vocab_pad, interpolate_unigrams)
        self.p = {gram: p for gram, p in everything.items() if not self._pruned(gram)}

    def _smooth_context(self, n, context, grams, everything, vocab_pad, interpolate_unigrams) -> None:
        discount = self.discounts[n - 1]
        kept = [gram for gram in grams if not self._pruned(gram)]
        total = F(sum(self.adjusted[n][gram] for gram in grams))
        gamma = F(0)
        for j in (1, 2, 3):
            gamma += discount[j] * F(sum(1 for gram in kept if min(self.adjusted[n][gram], 3) == j))
        gamma += F(sum(self.adjusted[n][gram] for gram in grams if self._pruned(gram)))
        gamma /= total
        if n > 1 and kept:
            self.backoff[context] = gamma
        uniform = F(1) / F(max(vocab_pad, len(kept) - 1)) if n == 1 else None
        for gram in grams:
            a = self.adjusted[n][gram]
            u = (F(a) - discount[min(a, 3)]) / total
            if gram == (BOS,):
                everything[gram] = F(1)
            elif n > 1:
                everything[gram] = u + gamma * everything[gram[1:]]
            elif interpolate_unigrams:
                everything[gram] = u + gamma * uniform
            else:
                everything[gram] = gamma if gram == (UNK,) else u

    def rows(self) -> dict[tuple, tuple]:
        """What an ARPA file holds: log10 as float32."""
        result = {}
        for gram, p in self.p.items():
            backoff = np.log10(self.backoff.get(gram, F(1))) if len(gram) < self.order else None
            result[gram] = (min(F(0), np.log10(p)), backoff)
        return result


def read_arpa(data: bytes, number=F) -> tuple[dict[tuple, tuple], list[int]]:
    """Rows of an ARPA file and the numbers of n-grams that its head announces; checks the frame around them. `number`: float32, or float."""
    lines = data.split(b"\n")
    assert lines[0] == b"\\data\\" and lines[-2:] == [b"\\end\\", b""]
    announced, rows, n = [], {}, 0
    for line in lines[1:-2]:
        if match := re.fullmatch(rb"ngram (\d+)=(\d+)", line):
            assert int(match[1]) == len(announced) + 1
            announced.append(int(match[2]))
        elif match := re.fullmatch(rb"\\(\d+)-grams:", line):
            assert int(match[1]) == n + 1
            n += 1
        elif line:
            fields = line.split(b"\t")
            words = tuple(fields[1].split(b" "))
            assert len(words) == n and words not in rows
            assert len(fields) == (2 if n == len(announced) else 3)
            rows[words] = (number(fields[0]), number(fields[2]) if len(fields) == 3 else None)
    assert [sum(1 for words in rows if len(words) == k) for k in range(1, n + 1)] == announced
    return rows, announced
