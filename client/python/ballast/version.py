"""The release of this package: one number for wheel and binaries, from the file VERSION at the root of the repository."""

from __future__ import annotations

import importlib.metadata
import pathlib

PROTOCOL = 1  # first message of every stream


def _release() -> str:
    in_tree = pathlib.Path(__file__).resolve().parents[3] / "VERSION"
    if in_tree.is_file() and (in_tree.parent / "proto" / "ballast").is_dir():
        return in_tree.read_text().strip()
    try:
        return importlib.metadata.version("ballast")
    except importlib.metadata.PackageNotFoundError:
        return "0.0.0"


RELEASE = _release()
