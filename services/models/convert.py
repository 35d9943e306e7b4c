"""Model versions on the wire."""

from __future__ import annotations

from trainyard.v1 import common_pb2
from trainyard.v1 import model_pb2 as pb

from services.core import names
from services.core.errors import RequestInvalid
from services.db.models import ModelVersion
from services.jobs.convert import timestamp
from services.models.download import Link, Source
from services.models.manager import CheckpointName, VersionDetails
from services.models.version import version_number
from services.rpc.structs import to_struct


def version_name(name: str, *, field: str = "name") -> tuple[str, str, int | None]:
    """Return (project, model id, version) of a model version's name; None is the newest version."""
    parsed = names.parse(name, "models", "versions", field=field)
    model_id, version = parsed.ids
    return parsed.project, model_id, version_number(version, field=field)


def checkpoint_name(name: str) -> CheckpointName:
    parsed = names.parse(name, "jobs", "checkpoints", field="checkpoint")
    return CheckpointName(parsed.project, *parsed.ids)


def parent_model(parent: str) -> tuple[str, str | None]:
    """Return project and model of `projects/{project}` or `projects/{project}/models/{model}`."""
    if parent.count("/") <= 1:
        return names.parse_project(parent), None
    parsed = names.parse(parent, "models", field="parent")
    return parsed.project, parsed.ids[0]


def model_of_request(request: pb.CreateModelVersionRequest, source: CheckpointName) -> str | None:
    """Return the model that shall get the version; None leaves it to the checkpoint's job."""
    if not request.parent:
        return None
    project, model_id = parent_model(request.parent)
    if project != source.project:
        raise RequestInvalid("the model and the checkpoint are of different projects")
    return model_id


def version_to_proto(version: ModelVersion) -> pb.ModelVersion:
    message = pb.ModelVersion(
        name=names.model_version(version.project, version.model_id, version.version),
        version=version.version,
        state=pb.MODEL_VERSION_STATE_READY if version.bundle_sha256 else pb.MODEL_VERSION_STATE_PENDING,
        job=names.job(version.project, version.job_id),
        recipe=version.recipe,
        config=to_struct(version.config),
        bundle_sha256=version.bundle_sha256,
        size_bytes=version.size_bytes,
        create_time=timestamp(version.create_time),
    )
    for key, value in version.metrics.items():
        message.metrics[key] = float(value)
    if version.checkpoint_id is not None:
        message.checkpoint = names.checkpoint(version.project, version.job_id, version.checkpoint_id)
    return message


def details_to_proto(details: VersionDetails) -> pb.ModelVersion:
    message = version_to_proto(details.version)
    if details.failure is not None:
        message.state = pb.MODEL_VERSION_STATE_FAILED
        message.message = details.failure
    if details.manifest is not None:
        for name, entry in sorted(details.manifest.files.items()):
            message.files.append(common_pb2.StoredFile(name=name, size_bytes=entry.size_bytes, sha256=entry.sha256))
    return message


def header_to_proto(source: Source) -> pb.DownloadArtifactResponse:
    return pb.DownloadArtifactResponse(header=_header(source))


def link_to_proto(source: Source, link: Link) -> pb.CreateDownloadLinkResponse:
    return pb.CreateDownloadLinkResponse(header=_header(source), url=link.url, expire_time=timestamp(link.expire_time))


def _header(source: Source) -> pb.DownloadHeader:
    return pb.DownloadHeader(file_name=source.file_name, size_bytes=source.size_bytes, sha256=source.sha256)
