"""A gRPC client of TorchServe, made from the proto file inside its own jar.

The token travels as metadata: `authorization: Bearer <token>`, the inference token of REST.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import google.rpc.status_pb2
import grpc
import grpc_tools
from grpc_tools import protoc


def compile_stubs(directory: Path) -> tuple[ModuleType, ModuleType]:
    """Generate and import the messages and stubs of TorchServe's inference service."""
    jar = importlib.metadata.distribution("torchserve").locate_file("ts/frontend/model-server.jar")
    with zipfile.ZipFile(str(jar)) as archive:
        (directory / "ts_inference.proto").write_bytes(archive.read("inference.proto"))
    includes = [
        directory,
        Path(grpc_tools.__file__).parent / "_proto",
        Path(google.rpc.status_pb2.__file__).parents[2],
    ]
    arguments = [f"-I{path}" for path in includes]
    code = protoc.main(
        ["protoc", *arguments, f"--python_out={directory}", f"--grpc_python_out={directory}", "ts_inference.proto"]
    )
    assert code == 0
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module("ts_inference_pb2"), importlib.import_module("ts_inference_pb2_grpc")
    finally:
        sys.path.remove(str(directory))


class GrpcClient:
    """Sends one input to one model."""

    def __init__(self, channel: grpc.Channel, stubs: tuple[ModuleType, ModuleType]) -> None:
        self._messages, services = stubs
        self._stub = services.InferenceAPIsServiceStub(channel)

    def predict(self, model: str, body: bytes, *, token: str) -> bytes:
        request = self._messages.PredictionsRequest(model_name=model, input={"data": body})
        metadata: Any = (("authorization", f"Bearer {token}"),)
        return bytes(self._stub.Predictions(request, metadata=metadata, timeout=30).prediction)


@contextmanager
def grpc_client(address: str, stubs: tuple[ModuleType, ModuleType]) -> Iterator[GrpcClient]:
    with grpc.insecure_channel(address) as channel:
        yield GrpcClient(channel, stubs)
