"""Bit equality with lmplz on real text: checksums of its sorted ARPA files, of corpora that are too large for the repository. docs/NGRAM.md,
"Corpora", says how they are made; BALLAST_NGRAM_CORPUS names their folder."""

from __future__ import annotations

import collections
import hashlib
import os
import pathlib
import subprocess

import pytest

FOLDER = os.environ.get("BALLAST_NGRAM_CORPUS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="BALLAST_NGRAM_CORPUS names no folder with the corpora of docs/NGRAM.md")

CHECKSUMS = {
    ("1MB", 3, None): "2f40d9cf78ac363bf83276379452508e6c904fc8bf4f320a05c4667b1ac732a4",
    ("1MB", 5, None): "8e0fe7bc2aa6c899366669a690622b91d7d3a3fc626b0f302c4bf15b002b48d6",
    ("10MB", 3, None): "7ae682610adc3154a6d1d335903788414cd9ae3d773457ae4f18a97e76dd9fde",
    ("10MB", 5, None): "419576ccc2d62d58bc34589034fa49408f085cd7d5f37711fc3d3d9e1c8a17e1",
    ("1MB", 3, "0,0,1"): "24e0290881c9c71647700bc51597b1bcb3239e9608fb1a1938b6d45cb2246e5d",
    ("1MB", 3, "1,2,3"): "a2c79609741daff56993f6d59787a0c70129ecf1325016e6bdac27d431ba4720",
    ("1MB", 5, "0,0,1,1,2"): "e9c9e02dbd10b71269ea6548795ef34432ed5c0317b224cf11e907869e3398b1",
    ("1MB", 5, "1,2,3"): "1cf43fecd2aaaff1ba0fd3ff8f56033c37f4e99190701d5b0e224e7aeb0d7845",
    ("10MB", 3, "0,0,1"): "543e1673e6f7ddfb4bf6b3da26948a4e034b523c86fc28d4d55a570d2562a1b4",
    ("10MB", 3, "1,2,3"): "d5e4f90afc4ebe9a0360685433c5ed618f0233e217193977436fd1aefb80b3be",
    ("10MB", 5, "0,0,1,1,2"): "1fd3ba2369f174ff1027974cd19d26f528b0a71c3d5810e91be21dacaa823917",
    ("10MB", 5, "1,2,3"): "cdf75ca9da16190b048534a31564f2beae96f4c713a7204f180ae27cdae679f0",
    ("100MB", 3, None): "7404871cde66ace4d894b765dcabcd01e108b6d6d44010d985f6d47cdf0b2638",
    ("100MB", 5, None): "887f9aba4353c6f076081f94cafb94657f474ce6133f52a26f30ca25316cedfd",
    ("100MB", 3, "0,0,1"): "1fc6be884db682cf56f1810a90f8e534f5a167054f6934db3cf0c897a174d132",
    ("100MB", 5, "0,0,1,1,2"): "e1cdbba4da23f133017dc3d7dcbe89ff4afca0465516739e4b64e31999a8b179",
}


# Of lmplz --limit_vocab_file, with the words that occur five times and more in the text.
LIMITED = {
    (3, None): "40fe75a3a052880432e132981bc188afb58e5f877c72f8b7db7470c86dcd4204",
    (5, "0,1"): "9c801ff5b56a347744dfed2e691802d680d3d2b02f3236399b38f7c633e5aff5",
}


@pytest.mark.parametrize(
    ("size", "order", "prune"), [pytest.param(*key, marks=[pytest.mark.slow] if key[0] == "100MB" else []) for key in CHECKSUMS]
)
def test_model_has_the_bytes_of_lmplz(ngram, size: str, order: int, prune: str | None):
    assert _checksum(ngram, size, order, prune) == CHECKSUMS[size, order, prune]


@pytest.mark.parametrize(("order", "prune"), LIMITED)
def test_limited_vocabulary_has_the_bytes_of_lmplz(ngram, order: int, prune: str | None):
    counts = collections.Counter((pathlib.Path(FOLDER) / "rfc.1MB.txt").read_bytes().split())
    (ngram.scratch / "list").write_bytes(b"\n".join(word for word, count in counts.items() if count >= 5))
    assert _checksum(ngram, "1MB", order, prune, "--limit-vocab", ngram.scratch / "list") == LIMITED[order, prune]


def _checksum(ngram, size: str, order: int, prune: str | None, *flags) -> str:
    out = ngram.scratch / "arpa"
    flags = ["--order", order, "--compat", "lmplz", *(["--prune", prune] if prune else []), *flags]
    ngram.ok("train", pathlib.Path(FOLDER) / f"rfc.{size}.txt", "--out", out, *flags)
    lines = subprocess.run(["sort", "-T", ngram.scratch, out], env={**os.environ, "LC_ALL": "C"}, check=True, capture_output=True).stdout
    return hashlib.sha256(lines).hexdigest()
