"""The work folder: what each stage left, under a name made of everything that it depends on. So a run that is started again goes on after the
last stage that was finished, and a change in the configuration runs again only what it changes.

Driver and executors must reach the folder under one name: a local disk with `local[N]`, else a shared file system or an object store.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any, Optional

import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ballast.errors import BallastError

DONE = "done.json"


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Work:
    """Used by the driver only."""

    def __init__(self, folder: str) -> None:
        remote = re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]*://", folder)
        try:
            self._fs, self._root = pafs.FileSystem.from_uri(folder if remote else "file://" + os.path.abspath(folder))
            self._fs.create_dir(self._root, recursive=True)
        except (OSError, ValueError) as e:
            raise BallastError("BAD_CONFIG", f"the work folder {folder} cannot be used: {e}") from e
        self._uri = folder.rstrip("/") if remote else "file://" + os.path.abspath(folder)

    def uri(self, *names: str) -> str:
        """As Spark is told."""
        return "/".join((self._uri, *names))

    def finished(self, stage: str) -> Optional[dict[str, Any]]:
        path = self._path(stage, DONE)
        if self._fs.get_file_info(path).type == pafs.FileType.NotFound:
            return None
        doc: dict[str, Any] = json.loads(self.read(stage, DONE))
        return doc

    def begin(self, stage: str) -> None:
        """An empty folder: what an attempt that failed had left is gone."""
        path = self._path(stage)
        if self._fs.get_file_info(path).type != pafs.FileType.NotFound:
            self._fs.delete_dir(path)
        self._fs.create_dir(path, recursive=True)

    def finish(self, stage: str, doc: dict[str, Any]) -> None:
        """Last of all: its presence says that everything else is whole."""
        self.write(stage, DONE + ".part", json.dumps(doc).encode())
        self._fs.move(self._path(stage, DONE + ".part"), self._path(stage, DONE))

    def write(self, stage: str, name: str, data: bytes) -> None:
        with self._fs.open_output_stream(self._path(stage, name)) as out:
            out.write(data)

    def read(self, stage: str, name: str) -> bytes:
        with self._fs.open_input_stream(self._path(stage, name)) as file:
            data: bytes = file.read()
        return data

    def parquet(self, stage: str, name: str, columns: list[str], batch_rows: int = 64) -> Iterator[dict[str, list[Any]]]:
        """The rows of a table that Spark wrote here, on the driver; binary columns as buffers."""
        selector = pafs.FileSelector(self._path(stage, name))
        for info in sorted(self._fs.get_file_info(selector), key=lambda i: str(i.path)):
            if info.type == pafs.FileType.File and info.base_name.endswith(".parquet"):
                with self._fs.open_input_file(info.path) as file:
                    for batch in pq.ParquetFile(file).iter_batches(batch_rows, columns=columns):
                        yield {c: [v.as_buffer() if c == "data" else v.as_py() for v in batch.column(c)] for c in columns}

    def _path(self, *names: str) -> str:
        return "/".join((self._root, *names))
