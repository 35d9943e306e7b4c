"""Every rpc that the server answers, found in the descriptors, so that a new one is fuzzed by itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import trainyard.v1
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method and the kinds of its messages."""

    path: str
    request: Descriptor
    response: Descriptor
    is_client_streaming: bool
    is_server_streaming: bool

    @property
    def is_unary(self) -> bool:
        return not self.is_client_streaming and not self.is_server_streaming


def every_rpc() -> list[Rpc]:
    """Return all methods of the contract, of health and of reflection, in order of their paths."""
    modules = [*_contract(), health_pb2, reflection_pb2]
    found = [rpc for module in modules for service in _services(module) for rpc in _methods(service)]
    return sorted(found, key=lambda rpc: rpc.path)


def _contract() -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(trainyard.v1.__path__):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"trainyard.v1.{module.name}")


def _services(module: ModuleType) -> list[ServiceDescriptor]:
    return list(module.DESCRIPTOR.services_by_name.values())


def _methods(service: ServiceDescriptor) -> Iterator[Rpc]:
    for method in service.methods:
        yield Rpc(
            f"/{service.full_name}/{method.name}",
            method.input_type,
            method.output_type,
            method.client_streaming,
            method.server_streaming,
        )
