"""The processes of `ballast-ngram`: where the binary is, and how rows go through it.

A process is fed by a thread of its own while the caller reads, and what it says on standard error is drained by another: no pipe can fill
up and wait for the other (SPARK-7862). A process that fails makes the caller fail with what it said.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional

from ballast.errors import BallastError
from ballast.ngram import rows

NAME = "ballast-ngram"
_STDERR_BYTES = 4096
_WATCH_EVERY_S = 0.05
_PIPE_BYTES = 1 << 20  # Fewer changes between the processes of a busy machine.


def find_binary(given: str = "") -> pathlib.Path:
    """On the driver: the configuration's path, $BALLAST_BIN, PATH, or what Bazel built where this package lies in a checkout."""
    checkout = pathlib.Path(__file__).resolve().parents[4] / "bazel-bin" / "tools" / "ngram" / NAME
    folder = os.environ.get("BALLAST_BIN")
    candidates = [given] if given else [os.path.join(folder, NAME) if folder else "", shutil.which(NAME) or "", str(checkout)]
    for candidate in candidates:
        if candidate and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return pathlib.Path(candidate).resolve()
    looked = given or "$BALLAST_BIN, PATH and the checkout's bazel-bin"
    message = f'no estimator: there is no program "{NAME}" at {looked}; build it (bazel build //tools/ngram:ballast-ngram) '
    message += 'or name it: estimator = "PATH"'
    raise BallastError("ESTIMATOR_NOT_FOUND", message)


class Process:
    """One process, once: iterate `run`, then `cpu_s` and `rss_peak_bytes` are known."""

    def __init__(self, command: Sequence[str]) -> None:
        self.cpu_s = 0.0
        self.rss_peak_bytes = 0
        self._command = [str(part) for part in command]
        self._said = bytearray()
        self._failure: Optional[BaseException] = None
        self._over = threading.Event()
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as e:
            message = f"the estimator {self._command[0]} cannot be run on {socket.gethostname()}: {e.strerror}"
            raise BallastError("ESTIMATOR_NOT_FOUND", message) from e
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # A user may only have so much of this: then it is the usual 64 KiB.
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[arg-type]

    def run(self, chunks: Iterable[bytes]) -> Iterator[rows.Event]:
        """Feeds the chunks, gives what comes out. Raises what `chunks` raised, or BallastError(ESTIMATOR_FAILED)."""
        yield from rows.read_streams(self._reader(chunks))
        self._finish()

    def output(self, chunks: Iterable[bytes] = ()) -> bytes:
        """The same for commands that write other things than rows."""
        out: bytes = self._reader(chunks)(-1)
        self._finish()
        return out

    def _reader(self, chunks: Iterable[bytes]) -> Any:
        self._threads = [threading.Thread(target=self._feed, args=(chunks,), daemon=True)]
        self._threads += [threading.Thread(target=work, daemon=True) for work in (self._listen, self._watch_memory)]
        for thread in self._threads:
            thread.start()
        stdout: Any = self._process.stdout

        def read(size: int) -> bytes:
            data: bytes = stdout.read(size)
            if size > 0 and len(data) < size:  # It is over, one way or the other: a failure of the process says more than a short read.
                self._finish()
            return data

        return read

    def _feed(self, chunks: Iterable[bytes]) -> None:
        stdin: Any = self._process.stdin
        try:
            for chunk in chunks:
                stdin.write(chunk)
            stdin.close()
        except BrokenPipeError:
            pass  # Its exit status says why.
        except BaseException as e:  # noqa: B902 - handed to the caller's thread
            self._failure = e
            self._process.kill()
            stdin.close()

    def _listen(self) -> None:
        stderr: Any = self._process.stderr
        for line in stderr:
            self._said += line
            del self._said[:-_STDERR_BYTES]

    def _watch_memory(self) -> None:
        """Its own peak: that of getrusage begins with the memory of the process that started it."""
        try:
            with open(f"/proc/{self._process.pid}/status", "rb") as status:
                while True:
                    status.seek(0)
                    found = re.search(rb"VmHWM:\s*(\d+) kB", status.read())
                    self.rss_peak_bytes = max(self.rss_peak_bytes, int(found[1]) * 1024 if found else 0)
                    if self._over.wait(_WATCH_EVERY_S):
                        return
        except OSError:
            return  # It is over already.

    def _finish(self) -> None:
        if self._process.returncode is not None:
            return
        _, status, usage = os.wait4(self._process.pid, 0)
        self._over.set()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        for thread in self._threads:
            thread.join()
        if self._failure is not None:
            raise self._failure
        if self._process.returncode != 0:
            raise self._error()

    def _error(self) -> BallastError:
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with status {code}"
        said = self._said.decode(errors="replace").strip() or "it said nothing"
        shown = " ".join([NAME, *self._command[1:2]])
        return BallastError("ESTIMATOR_FAILED", f"{shown} {how} on {socket.gethostname()}: {said}", {"status": str(code), "said": said})

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        """A caller that stops half way leaves no process behind."""
        self._over.set()
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass


def run(binary: Any, *arguments: Any) -> bytes:
    """On the driver: a command that reads files. Returns its standard output."""
    with Process([str(binary), *map(str, arguments)]) as process:
        return process.output()
