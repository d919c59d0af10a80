"""The one exception of this package.

A server describes an error by a gRPC status with google.rpc.ErrorInfo: a reason in UPPER_SNAKE under the domain "ballast", and the
facts as metadata. Programs compare `reason`; people read the text. Errors found on this side have reasons of the same kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import grpc

DOMAIN = "ballast"
_RETRYABLE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED")
_MARK = "BALLAST_FAULT"
_MARKED = re.compile(_MARK + r"(\{.*?\})" + _MARK)


class BallastError(Exception):
    """reason: UPPER_SNAKE, for programs. message: for people. metadata: the facts. code: gRPC's status name, empty for local errors."""

    def __init__(self, reason: str, message: str, metadata: Optional[Mapping[str, str]] = None, code: str = "") -> None:
        super().__init__(reason, message, dict(metadata or {}), code)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}   (reason {self.reason})"

    @property
    def retryable(self) -> bool:
        """The same call may succeed later, without a change by the caller."""
        return self.code in _RETRYABLE


def from_rpc(error: "grpc.RpcError", peer: str) -> BallastError:
    """What a server at `peer` (or the way to it) said."""
    call: Any = error
    code = call.code().name if hasattr(call, "code") and call.code() is not None else "UNKNOWN"
    message = (call.details() if hasattr(call, "details") else None) or str(error)
    reason, metadata = code, {"peer": peer}
    info = _error_info(call)
    if info is not None:
        reason = info.reason
        metadata.update(info.metadata)
    elif code == "UNAVAILABLE":
        message = f"no connection to {peer}: {message}"
    elif code == "DEADLINE_EXCEEDED":
        message = f"{peer} did not answer in time: {message}"
    return BallastError(reason, message, metadata, code)


def _error_info(call: Any) -> Any:
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    trailing = call.trailing_metadata() if hasattr(call, "trailing_metadata") else None
    for key, value in trailing or ():
        if key != "grpc-status-details-bin":
            continue
        status = status_pb2.Status()
        try:
            status.ParseFromString(value)
        except DecodeError:
            return None
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN:
                return info
    return None


# ---- through Spark -----------------------------------------------------------------------------------------------------------------
# Spark carries an exception of a task to the driver as text inside a stack trace. A marked JSON object in that text survives the way.


class TaskFault(Exception):
    """How a task fails with a BallastError; `fault_in` finds it again on the driver."""

    def __init__(self, error: BallastError) -> None:
        doc = {"reason": error.reason, "message": error.message, "metadata": error.metadata, "code": error.code}
        super().__init__(f"{_MARK}{json.dumps(doc)}{_MARK}")


def fault_in(text: str) -> Optional[BallastError]:
    """The BallastError inside the text of a Spark error, if there is one."""
    found = _MARKED.search(text)
    if found is None:
        return None
    try:
        doc = json.loads(found.group(1))
        return BallastError(doc["reason"], doc["message"], doc["metadata"], doc["code"])
    except (ValueError, KeyError):
        return None
