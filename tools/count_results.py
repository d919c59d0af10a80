"""Counts the test cases of a run: Bazel's build event file (a case of GoogleTest each, read from test.xml) and pytest's JUnit files.

Usage: count_results.py FILE...   (*.json: build events, *.xml: JUnit). Prints "PASSED FAILED SKIPPED". A file that is missing or cut counts as one failure: its suite died.
"""

from __future__ import annotations

import json
import pathlib
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple


class Count(NamedTuple):
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: Count) -> Count:
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)


def count_junit(path: pathlib.Path) -> Count:
    """Cases of a JUnit file as GoogleTest, Bazel and pytest write them."""
    total = Count()
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            total = total.plus(Count(failed=1))
        elif case.find("skipped") is not None or case.get("result") in ("skipped", "suppressed"):
            total = total.plus(Count(skipped=1))
        else:
            total = total.plus(Count(passed=1))
    return total


def count_bazel(path: pathlib.Path) -> Count:
    """Cases of every test target of one `bazel test`; a target that has no case to show counts as one."""
    cases: dict[tuple, tuple[int, pathlib.Path | None, bool]] = {}  # (label, shard, run) -> last attempt, its test.xml, passed
    labels_failed: set[str] = set()
    complete = False
    for line in path.read_text().splitlines():
        event = json.loads(line)
        complete = complete or event.get("lastMessage", False)
        if "testResult" in event:
            key, result = event["id"]["testResult"], event["testResult"]
            place = (key["label"], key.get("shard", 0), key.get("run", 0))
            if key.get("attempt", 0) >= cases.get(place, (0, None, False))[0]:
                outputs = {o["name"]: o.get("uri", "") for o in result.get("testActionOutput", [])}
                xml = pathlib.Path(urllib.parse.unquote(urllib.parse.urlparse(outputs.get("test.xml", "")).path))
                cases[place] = (key.get("attempt", 0), xml if xml.is_file() else None, result.get("status") == "PASSED")
        elif "testSummary" in event and event["testSummary"].get("overallStatus") not in ("PASSED", "FLAKY"):
            labels_failed.add(event["id"]["testSummary"]["label"])
        elif "targetCompleted" in event.get("id", {}) and not event.get("completed", {}).get("success", False):
            labels_failed.add(event["id"]["targetCompleted"]["label"])
    total = Count(failed=0 if complete else 1)
    counted_as_failed = set()
    for (label, _, _), (_, xml, passed) in cases.items():
        count = count_junit(xml) if xml else Count()
        if passed and count == Count():
            count = Count(passed=1)
        elif not passed and count.failed == 0:
            count = count.plus(Count(failed=1))
        if count.failed:
            counted_as_failed.add(label)
        total = total.plus(count)
    return total.plus(Count(failed=len(labels_failed - counted_as_failed)))


def count_file(path: pathlib.Path) -> Count:
    try:
        return count_bazel(path) if path.suffix == ".json" else count_junit(path)
    except (OSError, ValueError, ElementTree.ParseError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return Count(failed=1)


def main() -> None:
    total = Count()
    for name in sys.argv[1:]:
        total = total.plus(count_file(pathlib.Path(name)))
    print(*total)


if __name__ == "__main__":
    main()
