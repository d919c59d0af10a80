"""The demo's data: every package that this machine's apt knows, its short description and its section.

One row a package: id (rank of its name), name, text inputs, section. Nothing is downloaded: the index is already on any Debian machine that ran
`apt-get update`.
"""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple


class Package(NamedTuple):
    name: str
    description: str
    section: str  # without its area prefix: "contrib/net" is "net"


def read_packages() -> list[Package]:
    """All packages with a section and a description, sorted by name. Exits with advice when apt has no lists."""
    try:
        dump = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"tools/demo: cannot run apt-cache dumpavail ({error}): the demo's data is Debian's package index; run it on Debian or Ubuntu")
    found: dict[str, Package] = {}
    for block in dump.split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            if ":" in line and not line[:1].isspace():
                key, value = line.split(":", 1)
                fields.setdefault(key, value.strip())
        description = fields.get("Description-en") or fields.get("Description")
        if description and "Package" in fields and "Section" in fields:
            found[fields["Package"]] = Package(fields["Package"], description, fields["Section"].split("/")[-1])
    if len(found) < 1000:
        sys.exit(
            f"tools/demo: apt knows only {len(found)} packages with a description; the demo needs Debian's package index: run `apt-get update` and try again"
        )
    return [found[name] for name in sorted(found)]
