"""Deployments and predictions on the wire, and requests into the domain."""

from __future__ import annotations

from trainyard.v1 import deployment_pb2 as pb

from services.core import names
from services.core.errors import RequestInvalid, Violation
from services.core.states import ArchiveState, DeploymentState
from services.db.archives import Archive
from services.db.deployments import Deployment, Replica
from services.deployments.manager import Wanted
from services.deployments.predict import Answer, Input
from services.jobs.convert import timestamp
from services.models.convert import version_name
from services.rpc.enums import enum_value
from services.rpc.structs import to_dict, to_struct

MAX_WORKERS = 32
MAX_INSTANCES = 64

_STATES = {state: enum_value(pb.DeploymentState, f"DEPLOYMENT_STATE_{state.name}") for state in DeploymentState}
_ARCHIVE_STATES = {state: enum_value(pb.ArchiveState, f"ARCHIVE_STATE_{state.name}") for state in ArchiveState}


def deployment_name(name: str) -> tuple[str, str]:
    """Return (project, deployment id)."""
    parsed = names.parse(name, "deployments")
    return parsed.project, parsed.ids[0]


def wanted(name: str, project: str) -> Wanted:
    """Return the model version to serve; it is of the deployment's own project."""
    model_project, model_id, version = version_name(name, field="model_version")
    if model_project != project:
        text = f"belongs to project {model_project!r}; a deployment serves models of its own project {project!r}"
        raise RequestInvalid(violations=[Violation("model_version", text)])
    return Wanted(model_id, version)


def check_workers(workers: int) -> int:
    if not 0 <= workers <= MAX_WORKERS:
        text = f"must be from 1 to {MAX_WORKERS}, not {workers}; 0 means one, or as many as before"
        raise RequestInvalid(violations=[Violation("workers", text)])
    return workers


def deployment_to_proto(deployment: Deployment, *, has_tokens: bool = False) -> pb.Deployment:
    """Return the deployment; tokens of its replicas only where they were asked for by name."""
    return pb.Deployment(
        name=names.deployment(deployment.project, deployment.deployment_id),
        model_version=names.model_version(deployment.project, deployment.model_id, deployment.version),
        workers=deployment.workers,
        state=_STATES[deployment.state],
        message=deployment.message,
        generation=deployment.generation,
        archive=_archive(deployment.archive),
        replicas=[_replica(replica, has_token=has_tokens) for replica in deployment.replicas],
        create_time=timestamp(deployment.create_time),
        update_time=timestamp(deployment.update_time),
    )


def inputs(request: pb.PredictRequest) -> list[Input]:
    """Return the instances.

    Raises:
        RequestInvalid: there are none, too many, or one is empty.
    """
    if not 1 <= len(request.instances) <= MAX_INSTANCES:
        text = f"must be 1 to {MAX_INSTANCES}, not {len(request.instances)}"
        raise RequestInvalid(violations=[Violation("instances", text)])
    return [_input(instance, number) for number, instance in enumerate(request.instances)]


def answer_to_proto(answer: Answer) -> pb.PredictResponse:
    response = pb.PredictResponse()
    for prediction in answer.predictions:
        if isinstance(prediction, str):
            response.predictions.add(error=pb.PredictionError(message=prediction))
        else:
            response.predictions.add(result=to_struct(prediction))
    response.model.model_version = answer.model_version
    response.model.recipe = answer.recipe
    return response


def _input(instance: pb.Instance, number: int) -> Input:
    if instance.WhichOneof("content") == "fields":
        return Input(body=None, fields=to_dict(instance.fields))
    if not instance.body:
        text = "is empty: send an encoded image as body, or named inputs as fields"
        raise RequestInvalid(violations=[Violation(f"instances[{number}]", text)])
    return Input(body=instance.body, fields={})


def _archive(archive: Archive) -> pb.Archive:
    return pb.Archive(
        target=archive.target,
        state=_ARCHIVE_STATES[archive.state],
        form=archive.form or "",
        size_bytes=archive.size_bytes or 0,
        sha256=archive.sha256 or "",
        parity=to_struct(archive.parity),
        message=archive.message,
    )


def _replica(replica: Replica, *, has_token: bool) -> pb.Replica:
    message = pb.Replica(
        agent_id=replica.agent_id,
        is_ready=replica.is_ready,
        inference_url=replica.inference_url,
        grpc_address=replica.grpc_address,
        message=replica.message,
    )
    if has_token:
        message.token = replica.token
        if replica.token_expire_time is not None:
            message.token_expire_time.CopyFrom(timestamp(replica.token_expire_time))
    return message
