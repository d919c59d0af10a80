"""Libraries that tests load into a process with LD_PRELOAD, compiled from the C file beside this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.cluster import REPOSITORY


def preloaded(name: str, directory: Path) -> Path:
    """Compiles tests/support/NAME.c into `directory`, once."""
    library = directory / f"{name}.so"
    if not library.exists():
        source = REPOSITORY / "tests" / "support" / f"{name}.c"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def failing_malloc(directory: Path) -> Path:
    return preloaded("failing_malloc", directory)
