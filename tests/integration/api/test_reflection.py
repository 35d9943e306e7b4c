"""A client that has no generated code: everything it needs comes over the wire."""

from __future__ import annotations

from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from services.api.compose import SERVICES
from tests.integration.api.conftest import TIMEOUT, Running


def test_reflection_lists_every_service(api: Running) -> None:
    database = ProtoReflectionDescriptorDatabase(api.channel)

    assert set(SERVICES) | {"grpc.health.v1.Health"} <= set(database.get_services())


def test_a_job_can_be_submitted_through_reflection_alone(api: Running) -> None:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(api.channel))
    method = pool.FindServiceByName("trainyard.v1.JobService").FindMethodByName("CreateJob")
    request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    request = request_class()
    json_format.ParseDict(
        {
            "recipe": "detection/yolo_v1",
            "preset": "tiny",
            "dataset": "projects/default/datasets/digits",
            "config": {"optim": {"lr": 0.5}},
        },
        request,
        descriptor_pool=pool,
    )
    call = api.channel.unary_unary(
        "/trainyard.v1.JobService/CreateJob",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )

    response = json_format.MessageToDict(call(request, timeout=TIMEOUT), descriptor_pool=pool)

    assert response["job"]["state"] == "JOB_STATE_QUEUED"
    assert response["job"]["config"]["optim"]["lr"] == 0.5
