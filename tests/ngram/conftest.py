"""The binary under test: $BALLAST_BIN/ballast-ngram, else what Bazel built."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _binary() -> pathlib.Path:
    folder = os.environ.get("BALLAST_BIN")
    return pathlib.Path(folder) / "ballast-ngram" if folder else ROOT / "bazel-bin/tools/ngram/ballast-ngram"


class Ngram:
    def __init__(self, scratch: pathlib.Path):
        self.scratch = scratch
        self.binary = _binary()

    def run(self, *arguments, stdin: bytes | None = None, **options) -> subprocess.CompletedProcess:
        command = [str(self.binary), *map(str, arguments)]
        env = {**os.environ, "TMPDIR": str(self.scratch)}
        return subprocess.run(command, input=stdin, capture_output=True, env=env, timeout=300, **options)

    def ok(self, *arguments, stdin: bytes | None = None) -> bytes:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def error(self, *arguments, stdin: bytes | None = None) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, "no error"
        return done.stderr.decode()

    def train(self, text: bytes, *flags) -> bytes:
        (self.scratch / "text").write_bytes(text)
        out = self.scratch / "model.arpa"
        self.ok("train", self.scratch / "text", "--out", out, *flags)
        return out.read_bytes()


@pytest.fixture
def ngram(tmp_path: pathlib.Path) -> Ngram:
    tool = Ngram(tmp_path)
    assert tool.binary.exists(), f"{tool.binary} is missing: bazel build //tools/ngram:ballast-ngram"
    return tool
