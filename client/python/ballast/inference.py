"""A small client of the Open Inference Protocol (KServe v2, inference.GRPCInferenceService), which every worker serves.

The message classes are built in a descriptor pool of their own: the protocol's real .proto may be registered in the same process by
another client (tritonclient), and two copies in one pool are an error. Only raw tensors are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from ballast.channel import open_channel
from ballast.dtypes import from_bfloat16_bits, from_kserve, kserve_name, numpy_dtype
from ballast.errors import BallastError, from_rpc
from ballast.model import Column

_SERVICE = "/inference.GRPCInferenceService/"
# (field, number, type): the part of the protocol that is used. "[]" repeats; a capital letter is a message.
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "InputTensor": [("name", 1, "string"), ("datatype", 2, "string"), ("shape", 3, "int64[]")],
    "RequestedOutput": [("name", 1, "string")],
    "ModelInferRequest": [
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("inputs", 5, "InputTensor[]"),
        ("outputs", 6, "RequestedOutput[]"),
        ("raw_input_contents", 7, "bytes[]"),
    ],
    "OutputTensor": [("name", 1, "string"), ("datatype", 2, "string"), ("shape", 3, "int64[]")],
    "ModelInferResponse": [
        ("model_name", 1, "string"),
        ("model_version", 2, "string"),
        ("outputs", 5, "OutputTensor[]"),
        ("raw_output_contents", 6, "bytes[]"),
    ],
}


@lru_cache(maxsize=None)
def _messages() -> Mapping[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="ballast/inference_subset.proto", package="inference", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            base = kind.replace("[]", "")
            label = kinds.LABEL_REPEATED if kind.endswith("[]") else kinds.LABEL_OPTIONAL
            added = described.field.add(name=name, number=number, label=label)
            if base in _MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".inference.{base}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{base.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {m: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"inference.{m}")) for m in _MESSAGES}


class InferenceClient:
    """One worker. Not shared between threads; close it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = open_channel(address)
        messages = _messages()
        self._request: Any = messages["ModelInferRequest"]
        self._infer: Any = self._channel.unary_unary(
            _SERVICE + "ModelInfer", request_serializer=self._request.SerializeToString, response_deserializer=messages["ModelInferResponse"].FromString
        )

    def infer(
        self, model: str, version: str, inputs: Sequence[tuple[Column, npt.NDArray[Any]]], outputs: Sequence[str], timeout_s: float = 120.0
    ) -> dict[str, npt.NDArray[Any]]:
        """Raises BallastError; `retryable` ones may succeed at another worker."""
        request = self._request(model_name=model, model_version=version)
        for column, array in inputs:
            request.inputs.add(name=column.name, datatype=kserve_name(column.dtype), shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        for name in outputs:
            request.outputs.add(name=name)
        try:
            response = self._infer(request, timeout=timeout_s)
        except grpc.RpcError as e:
            raise from_rpc(e, f"worker {self.address}") from None
        return self._unpack(response, outputs)

    def _unpack(self, response: Any, wanted: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        found: dict[str, npt.NDArray[Any]] = {}
        for tensor, raw in zip(response.outputs, response.raw_output_contents):
            dtype = from_kserve(tensor.datatype)
            array = np.frombuffer(raw, dtype=numpy_dtype(dtype)).reshape(tuple(tensor.shape))
            found[tensor.name] = from_bfloat16_bits(array) if dtype == "bfloat16" else array
        missing = [n for n in wanted if n not in found]
        if missing:
            raise BallastError("OUTPUT_MISSING", f'worker {self.address} left out the output "{missing[0]}"')
        return found

    def close(self) -> None:
        self._channel.close()
