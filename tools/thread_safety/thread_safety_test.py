"""That the lock check notices what it is for: small files, one rule broken in each; and that every mutex of the tree guards something by name."""

from __future__ import annotations

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = """
#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

class Counter {{
 public:
  int Next() {{
    {body}
  }}

 private:
  void Add() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {{ ++count_; }}
  absl::Mutex mu_;
  int count_ ABSL_GUARDED_BY(mu_) = 0;
}};

int Use() {{ return Counter().Next(); }}
"""


def _check(tmp_path: pathlib.Path, body: str) -> subprocess.CompletedProcess[str]:
    source = tmp_path / "counter.cc"
    source.write_text(SOURCE.format(body=body))
    return subprocess.run(
        [ROOT / "tools/thread_safety/check", tmp_path / "stamp", source], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_guarded_field_under_its_lock_passes(tmp_path: pathlib.Path):
    checked = _check(tmp_path, "absl::MutexLock lock(&mu_); Add(); return count_;")
    assert checked.returncode == 0, checked.stderr
    assert (tmp_path / "stamp").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return count_;", "reading variable 'count_' requires holding mutex 'mu_'"),
        ("Add(); return 0;", "calling function 'Add' requires holding mutex 'mu_'"),
        ("mu_.Lock(); return ++count_;", "mutex 'mu_' is still held at the end of function"),
        ("absl::MutexLock lock(&mu_); { absl::MutexLock again(&mu_); } return count_;", "acquiring mutex 'mu_' that is already held"),
    ],
)
def test_a_broken_annotation_fails(tmp_path: pathlib.Path, body: str, message: str):
    checked = _check(tmp_path, body)
    assert checked.returncode != 0
    assert message in checked.stderr
    assert not (tmp_path / "stamp").exists()


# Waiting on the steady clock takes std::condition_variable, and that takes std::mutex.
# The tests run under TSan, which sees std::mutex in full; what they wait for shall not lean on the mutex under test.
WITHOUT_ANNOTATIONS = {"steady.h", "server/shard/push_threads_test.cc", "worker/feed/feed_threads_test.cc"}


# A mutex that holds an order instead of data says so where it is declared.
def test_every_mutex_guards_something_by_name():
    listed = subprocess.run(["git", "ls-files", "*.h", "*.cc"], cwd=ROOT, check=True, capture_output=True, text=True)
    findings = []
    for name in listed.stdout.split():
        text = (ROOT / name).read_text()
        for match in re.finditer(r"^ +(?:mutable )?absl::Mutex (\w+);(.*)$", text, re.MULTILINE):
            named = re.search(rf"(GUARDED_BY|LOCKS_REQUIRED|EXCLUSIVE_LOCK_FUNCTION)\((\w+(\.|->))?{match[1]}\)", text)
            if not named and not name.startswith("third_party/"):
                findings.append(f"{name}: {match[1]} guards nothing by name: annotate what it protects with ABSL_GUARDED_BY")
        if name not in WITHOUT_ANNOTATIONS and re.search(r"^ +(mutable )?std::(shared_|recursive_)?mutex \w+;", text, re.MULTILINE) and "ABSL_LOCKABLE" not in text:
            findings.append(f"{name}: clang knows no annotations of std::mutex: use absl::Mutex")
    assert not findings, "\n".join(findings)
