"""Files that the servers keep as bytes, named by their sha256: model archives and initial weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from ballast.channel import Connection
from ballast.errors import BallastError

_PIECE_BYTES = 1 << 20


def put_artifact(connection: Connection, content: bytes, patience_s: float = 60.0) -> str:
    """Stores `content` unless the server has it already. Returns its sha256."""
    sha256 = hashlib.sha256(content).hexdigest()
    if not _has(connection, sha256):
        artifact = connection.upload("PutArtifact", lambda: _pieces(content, sha256), patience_s=patience_s)
        if artifact.sha256 != sha256:
            raise BallastError("ARTIFACT_CORRUPT", f"the server stored {artifact.sha256} where {sha256} was sent")
    return sha256


def get_artifact(connection: Connection, sha256: str) -> bytes:
    """Raises BallastError: NOT_FOUND by code when the server has none, ARTIFACT_CORRUPT when the bytes are not those of the name."""
    from ballast.v1 import control_pb2

    content = b"".join(p.data for p in connection.stream("GetArtifact", control_pb2.ArtifactRef(sha256=sha256), timeout_s=600.0))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BallastError("ARTIFACT_CORRUPT", f"the bytes that {connection.address} sent are not those of artifact {sha256}", code="DATA_LOSS")
    return content


def _has(connection: Connection, sha256: str) -> bool:
    from ballast.v1 import control_pb2

    pieces = connection.stream("GetArtifact", control_pb2.ArtifactRef(sha256=sha256))
    try:
        next(pieces, None)
        return True
    except BallastError as e:
        if e.code == "NOT_FOUND":
            return False
        raise
    finally:
        pieces.close()  # type: ignore[attr-defined]


def _pieces(content: bytes, sha256: str) -> Iterator[Any]:
    from ballast.v1 import control_pb2

    yield control_pb2.Piece(sha256=sha256, total_bytes=len(content), data=content[:_PIECE_BYTES])
    for start in range(_PIECE_BYTES, len(content), _PIECE_BYTES):
        yield control_pb2.Piece(data=content[start : start + _PIECE_BYTES])
