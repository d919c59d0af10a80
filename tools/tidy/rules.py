"""The include rules of docs/ARCHITECTURE.md as functions: text of a file in, findings out. tidy_test.py applies them to the whole tree."""

from __future__ import annotations

import re
from dataclasses import dataclass

# First part of a quoted include -> what it is.
OURS = ("core", "proto", "server", "worker", "tests", "tools", "third_party")
GENERATED = re.compile(r"^(ballast/v1/|google/rpc/|grpc_service\.).*\.pb\.h$|^grpc_service\.(grpc\.)?pb\.h$|^version\.h$")

# What a folder may include of ours. Tests (and what lies under tests/ and tools/) may include everything.
MAY_INCLUDE = {
    "core": {"core"},
    "proto": {"proto", "core"},
    "server": {"server", "proto", "core"},
    "worker": {"worker", "proto", "core"},
    "third_party": {"third_party"},
}
WHY = {
    ("core", "proto"): "core is pure and knows no wire; convert in proto/convert.h and pass core types in",
    ("core", "server"): "core is shared by server and worker and knows neither; move what both need into core",
    ("core", "worker"): "core is shared by server and worker and knows neither; move what both need into core",
    ("proto", "server"): "proto holds the contract and its converters only",
    ("proto", "worker"): "proto holds the contract and its converters only",
    ("server", "worker"): "server and worker meet on the wire only; move what both need into core",
    ("worker", "server"): "server and worker meet on the wire only; move what both need into core",
}


@dataclass(frozen=True)
class Library:
    """A library that only some folders may see."""

    name: str
    includes: re.Pattern[str]
    folders: tuple[str, ...]  # path prefixes
    instead: str


LIBRARIES = (
    Library("RocksDB", re.compile(r"^rocksdb/"), ("server/storage/",), "use the interface of server/storage/store.h"),
    Library("libtorch", re.compile(r"^(torch|ATen|c10|caffe2)/"), ("worker/model/",), "hand plain buffers to worker/model and take plain buffers back"),
    Library("CUDA", re.compile(r"^(cuda|cublas|cub/|thrust/)"), ("core/kernels/cuda/",), "call through core/kernels/kernels.h"),
    Library("gRPC", re.compile(r"^(grpc|grpcpp|grpc\+\+)/"), ("proto/", "server/", "worker/"), "core is pure: pass values in, return absl::Status"),
    Library("protobuf", re.compile(r"^google/protobuf/|\.pb\.h$"), ("proto/", "server/", "worker/"), "core is pure: convert in proto/convert.h"),
    Library("prometheus-cpp", re.compile(r"^prometheus/"), ("server/", "worker/"), "return the numbers and let server/metrics or worker/metrics name them"),
)
# core may be called from a simulation that owns time and order: it takes both as arguments.
IMPURE = {
    **dict.fromkeys(("mutex", "shared_mutex", "thread", "condition_variable", "future"), "locks and threads belong to the caller"),
    **dict.fromkeys(("chrono", "ctime", "time.h", "sys/time.h"), "take the time as an argument"),
    **dict.fromkeys(("fstream", "iostream", "filesystem", "unistd.h", "fcntl.h", "cstdio", "stdio.h"), "take and return bytes; I/O belongs to the caller"),
    **dict.fromkeys(("random", "absl/random/random.h"), "use the counter-based generator with a seed that is passed in"),
    **dict.fromkeys(("absl/synchronization/mutex.h", "absl/time/clock.h", "steady.h"), "locks and clocks belong to the caller"),
}
# Headers beside VERSION, which server and worker share.
ROOT_HEADERS = {"steady.h"}
# Timed waits of Abseil follow the wall clock: when that is set back by an hour, they last an hour longer.
WALL_CLOCK = re.compile(r"absl::Now\b|\b(Await|Wait|WaitForNotification|LockWhen|ReaderLockWhen)With(Timeout|Deadline)\b")
READS_WALL_CLOCK = ("server/log.cc", "worker/log.cc")  # for the time of day of a line
CORE_ANGLE = re.compile(r"^([a-z_0-9]+(\.h)?|xxhash\.h|sys/[a-z]+\.h|absl/.*)$")
BANNED_WORDS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|not (yet )?implemented", re.IGNORECASE)

_INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def is_test(path: str) -> bool:
    """Unit tests, benchmarks and their helpers may use what the code beside them may not."""
    return bool(re.search(r"(_test|_bench|_simulation|_sim)\.(cc|h)$|/test_util/|/testing/|_testing\.(cc|h)$", path))


def _includes(text: str):
    for number, line in enumerate(text.splitlines(), start=1):
        match = _INCLUDE.match(line)
        if match:
            yield number, match[1] == '"', match[2]


def _check_ours(path: str, folder: str, target: str) -> str | None:
    part = target.split("/")[0]
    if folder not in MAY_INCLUDE or part not in OURS or part in MAY_INCLUDE[folder]:
        return None
    why = WHY.get((folder, part), f"{folder}/ may include only {', '.join(sorted(MAY_INCLUDE[folder]))}")
    return f"{folder}/ must not include {part}/: {why}"


def _check_library(path: str, target: str) -> str | None:
    for library in LIBRARIES:
        if library.includes.search(target) and not path.startswith(library.folders):
            return f"{library.name} is only seen by {', '.join(library.folders)}: {library.instead}"
    return None


def _check_core(target: str, quoted: bool) -> str | None:
    if target in IMPURE:
        return f"core is pure and must not include <{target}>: {IMPURE[target]}"
    if quoted or CORE_ANGLE.match(target):
        return None
    return f"core includes only core, the standard library, Abseil and xxhash.h, not <{target}>"


def check_includes(path: str, text: str, exists) -> list[str]:
    """Findings of one C++ file, each as `path:line: what is wrong: what to do`. `exists(path)` says whether a path is in the tree."""
    folder = path.split("/")[0]
    free = folder in ("tests", "tools") or path.startswith("third_party/")
    findings = []
    for line, quoted, target in _includes(text):
        wrong = None
        if ".." in target.split("/"):
            wrong = "relative include: name the file from the root of the repository"
        elif quoted and target.split("/")[0] in OURS and not GENERATED.match(target) and not exists(target):
            wrong = f'there is no file "{target}"'
        elif quoted and "/" not in target and target not in ROOT_HEADERS and not GENERATED.match(target):
            wrong = f'name "{target}" from the root of the repository'
        elif not is_test(path) and not free:
            wrong = _check_ours(path, folder, target) or _check_library(path, target)
            if wrong is None and folder == "core" and not path.startswith("core/kernels/cuda/"):
                wrong = _check_core(target, quoted)
        elif folder in ("server", "worker", "core") and is_test(path):
            wrong = _check_ours(path, folder, target) if not target.startswith(("tests/", "tools/")) else None
        if wrong:
            findings.append(f"{path}:{line}: {wrong}")
    return findings


def check_text(path: str, text: str) -> list[str]:
    """Open ends that must not be committed, and headers that do not say what they are."""
    findings = [
        f"{path}:{number}: open end ({match[0]}): do it, or write an issue"
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := BANNED_WORDS.search(line))
    ]
    if path.startswith(("server/", "worker/")) and not is_test(path) and path not in READS_WALL_CLOCK:
        findings += [
            f"{path}:{number}: {match[0]} follows the wall clock, which may be set: take SteadyNow and Signal of steady.h"
            for number, line in enumerate(text.splitlines(), start=1)
            if (match := WALL_CLOCK.search(line))
        ]
    if path.endswith(".h"):
        if not text.startswith("//"):
            findings.append(f"{path}:1: a header begins with a comment: what it is, who calls it from which thread, units, errors")
        if "#pragma once" not in text and not re.search(r"#ifndef \w+_H_\n#define \w+_H_\n", text):
            findings.append(f"{path}:1: no include guard")
    return findings
