"""Calls of any rpc by its path, with any credentials, and a valid request of each for a project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2
from trainyard.v1 import dataset_pb2, deployment_pb2, gallery_pb2

from tests.integration.identity.world import Estate

TIMEOUT = 20.0
PREFIX = "/trainyard.v1."
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

FACE = gallery_pb2.FaceImage(content=b"image")

Metadata = tuple[tuple[str, str], ...]
Fields = dict[str, Any]


def call(channel: grpc.Channel, path: str, fields: Mapping[str, Any], metadata: Metadata) -> list[Message]:
    """Make one call and return all it answers; raises grpc.RpcError where it is refused."""
    _, service, name = path.split("/")
    method = Default().FindServiceByName(service).FindMethodByName(name)
    request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    request = request_class(**fields)
    kinds = {(False, False): "unary_unary", (False, True): "unary_stream", (True, False): "stream_unary"}
    kind = kinds.get((method.client_streaming, method.server_streaming), "stream_stream")
    make = getattr(channel, kind)(
        path, request_serializer=request_class.SerializeToString, response_deserializer=response_class.FromString
    )
    given: Any = iter([request]) if method.client_streaming else request
    answer = make(given, timeout=TIMEOUT, metadata=metadata)
    return list(answer) if method.server_streaming else [answer]


def _of(service: str, methods: Mapping[str, Callable[[Estate], Fields]]) -> dict[str, Callable[[Estate], Fields]]:
    return {f"{PREFIX}{service}/{name}": fields for name, fields in methods.items()}


VALID: Mapping[str, Callable[[Estate], Fields]] = {
    REFLECTION: lambda _: {"list_services": ""},
    **_of(
        "JobService",
        {
            "CreateJob": lambda e: {
                "parent": e.parent,
                "recipe": "detection/yolo_v1",
                "preset": "tiny",
                "dataset": e.dataset,
                "init_from": e.model_version,
            },
            "GetJob": lambda e: {"name": e.job},
            "ListJobs": lambda e: {"parent": e.parent},
            "WatchJob": lambda e: {"name": e.job},
            "CancelJob": lambda e: {"name": e.waiting_job},
            "PauseJob": lambda e: {"name": e.waiting_job},
            "ResumeJob": lambda e: {"name": e.waiting_job},
            "DeleteJob": lambda e: {"name": e.job},
            "ListCheckpoints": lambda e: {"parent": e.job},
            "DeleteCheckpoint": lambda e: {"name": e.checkpoint},
            "ListArtifacts": lambda e: {"parent": e.job},
        },
    ),
    **_of(
        "DatasetService",
        {
            "CreateDataset": lambda e: {
                "header": dataset_pb2.CreateDatasetHeader(parent=e.parent, dataset_id="more", size_bytes=9)
            },
            "GetDataset": lambda e: {"name": e.dataset},
            "ListDatasets": lambda e: {"parent": e.parent},
            "DeleteDataset": lambda e: {"name": e.dataset},
        },
    ),
    **_of(
        "RecipeService",
        {"ListRecipes": lambda _: {}, "GetRecipe": lambda _: {"name": "recipes/detection/yolo_v1"}},
    ),
    **_of(
        "ModelService",
        {
            "CreateModelVersion": lambda e: {"parent": e.model, "checkpoint": e.checkpoint},
            "GetModelVersion": lambda e: {"name": e.model_version},
            "DeleteModelVersion": lambda e: {"name": e.model_version},
            "ListModelVersions": lambda e: {"parent": e.model},
            "DownloadArtifact": lambda e: {"name": e.artifact},
            "CreateDownloadLink": lambda e: {"name": e.artifact},
        },
    ),
    **_of(
        "DeploymentService",
        {
            "CreateDeployment": lambda e: {
                "parent": e.parent,
                "deployment_id": "more",
                "model_version": e.model_version,
            },
            "GetDeployment": lambda e: {"name": e.deployment},
            "ListDeployments": lambda e: {"parent": e.parent},
            "UpdateDeployment": lambda e: {"name": e.deployment, "model_version": e.model_version, "workers": 2},
            "DeleteDeployment": lambda e: {"name": e.deployment},
            "Predict": lambda e: {"name": e.deployment, "instances": [deployment_pb2.Instance(body=b"image")]},
        },
    ),
    **_of(
        "GalleryService",
        {
            "CreateGallery": lambda e: {"parent": e.parent, "gallery_id": "more", "deployment": e.deployment},
            "GetGallery": lambda e: {"name": e.gallery},
            "ListGalleries": lambda e: {"parent": e.parent},
            "UpdateGallery": lambda e: {"name": e.gallery, "is_pinned": True},
            "DeleteGallery": lambda e: {"name": e.gallery},
            "EnrolIdentity": lambda e: {"parent": e.gallery, "identity_id": "more", "images": [FACE]},
            "ListIdentities": lambda e: {"parent": e.gallery},
            "DeleteIdentity": lambda e: {"name": e.identity},
            "Verify": lambda e: {"name": e.gallery, "image": FACE, "identity_id": e.identity.rpartition("/")[2]},
            "Identify": lambda e: {"name": e.gallery, "image": FACE},
            "ReenrolGallery": lambda e: {"name": e.gallery, "deployment": e.deployment},
        },
    ),
}


def with_field(fields: Fields, path: str, value: str) -> Fields:
    """Return the fields with another text at a path such as `name` or `header.parent`."""
    outer, _, inner = path.rpartition(".")
    if not outer:
        return {**fields, path: value}
    holder = type(fields[outer])()
    holder.CopyFrom(fields[outer])
    setattr(holder, inner, value)
    return {**fields, outer: holder}


def field_of(fields: Fields, path: str) -> str:
    outer, _, inner = path.rpartition(".")
    return str(getattr(fields[outer], inner) if outer else fields[path])


def texts(messages: Iterable[Message]) -> str:
    return "\n".join(str(message) for message in messages)


def services_by_reflection(channel: grpc.Channel, metadata: Metadata) -> set[str]:
    """Return the services the server says it has."""
    (answer,) = call(channel, REFLECTION, {"list_services": ""}, metadata)
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return {service.name for service in answer.list_services_response.service}
