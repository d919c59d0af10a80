"""Style as tests: the include rules, open ends and clang-format over every C++ file of the tree; and the rules' own tests."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import rules  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _files(*patterns: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return sorted({name for name in listed.stdout.splitlines() if (ROOT / name).is_file()})


CPP = _files("*.h", "*.cc")


def _report(findings: list[str]) -> None:
    if findings:
        pytest.fail(f"{len(findings)} finding(s)\n" + "\n".join(findings), pytrace=False)


def test_every_include_points_down():
    _report([f for name in CPP for f in rules.check_includes(name, (ROOT / name).read_text(), lambda path: (ROOT / path).is_file())])


def test_no_open_ends_and_every_header_says_what_it_is():
    _report([f for name in CPP for f in rules.check_text(name, (ROOT / name).read_text())])


def test_clang_format():
    wrong = []
    for name in CPP:
        checked = subprocess.run(["clang-format-14", "--style=file", "--dry-run", "--Werror", name], cwd=ROOT, capture_output=True, text=True)
        if checked.returncode:
            wrong.append(checked.stderr.split("\n")[0].replace(" [-Wclang-format-violations]", ""))
    _report([f"{line} (run tools/format)" for line in wrong])


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("server/shard/a.cc", '#include "worker/model/model.h"\n', "meet on the wire only"),
        ("worker/session/a.cc", '#include "server/metrics.h"\n', "meet on the wire only"),
        ("core/layout/a.h", '#include "proto/convert.h"\n', "knows no wire"),
        ("core/layout/a.h", '#include "ballast/v1/run.pb.h"\n', "protobuf is only seen by"),
        ("core/layout/a.cc", "#include <mutex>\n", "belong to the caller"),
        ("core/layout/a.cc", "#include <grpcpp/grpcpp.h>\n", "gRPC is only seen by"),
        ("core/layout/a.cc", "#include <boost/any.hpp>\n", "only core, the standard library"),
        ("server/shard/a.cc", "#include <rocksdb/db.h>\n", "server/storage/store.h"),
        ("worker/feed/a.cc", "#include <torch/torch.h>\n", "only seen by worker/model/"),
        ("worker/feed/a.cc", '#include "../b.h"\n', "relative include"),
        ("worker/feed/a.cc", '#include "worker/feed/gone.h"\n', "there is no file"),
        ("worker/feed/feed_test.cc", '#include "server/metrics.h"\n', "meet on the wire only"),
    ],
)
def test_rule_finds(path: str, text: str, message: str):
    findings = rules.check_includes(path, text, lambda name: "gone" not in name)
    assert len(findings) == 1
    assert findings[0].startswith(f"{path}:1: ")
    assert message in findings[0]


def test_a_clock_that_is_set_back_holds_nothing_up():
    """Leases, ticks and back-offs: no wait of server or worker depends on the time of day."""
    assert len(rules.check_text("server/a.cc", "mu_.AwaitWithTimeout(c, absl::Seconds(1));\nabsl::Time t = absl::Now();\n")) == 2
    assert rules.check_text("server/log.cc", "absl::Now()\n") == rules.check_text("worker/a_test.cc", "absl::Now()\n") == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("core/codec/a.cc", '#include "core/types.h"\n#include <immintrin.h>\n#include <xxhash.h>\n#include "absl/status/status.h"\n'),
        ("core/codec/a_test.cc", "#include <gtest/gtest.h>\n#include <random>\n#include <fstream>\n"),
        ("server/storage/a.cc", "#include <rocksdb/db.h>\n"),
        ("worker/model/a.cc", "#include <torch/script.h>\n"),
        ("server/control/a.cc", '#include "ballast/v1/control.grpc.pb.h"\n#include "proto/convert.h"\n#include "version.h"\n'),
        ("tests/integration/a_test.cc", '#include "server/a.h"\n#include "worker/b.h"\n'),
    ],
)
def test_rule_allows(path: str, text: str):
    assert rules.check_includes(path, text, lambda name: True) == []
