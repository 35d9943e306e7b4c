"""Datasets on the wire, and requests into the domain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from trainyard.v1 import dataset_pb2 as pb

from services.core import names
from services.core.errors import RequestInvalid, Violation
from services.datasets.canonical import FAMILY
from services.datasets.upload import Expected
from services.db.datasets import DatasetVersion
from services.jobs.convert import timestamp
from services.rpc.structs import to_struct

_FORMATS = {
    pb.DATASET_FORMAT_UNSPECIFIED: None,
    pb.DATASET_FORMAT_COCO: "coco",
    pb.DATASET_FORMAT_VOC: "voc",
    pb.DATASET_FORMAT_YOLO: "yolo",
}
_FORMATS_BACK = {word: value for value, word in _FORMATS.items() if word}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an upload is to become."""

    project: str
    dataset_id: str
    family: str
    source_format: str | None
    display_name: str
    request_id: str
    expected: Expected


def header(request: pb.CreateDatasetRequest | None) -> Header:
    """Read the first message of an upload.

    Raises:
        RequestInvalid: it is not a header, or names no dataset.
    """
    if request is None or request.WhichOneof("content") != "header":
        raise RequestInvalid(violations=[Violation("header", "must be the first message of the stream")])
    value = request.header
    if value.format not in _FORMATS:
        raise RequestInvalid(violations=[Violation("header.format", "is not known; leave it out to detect it")])
    return Header(
        project=names.parse_project(value.parent, field="header.parent"),
        dataset_id=names.check_slug(value.dataset_id, field="header.dataset_id"),
        family=value.family or FAMILY,
        source_format=_FORMATS[value.format],
        display_name=value.display_name,
        request_id=value.request_id,
        expected=Expected(value.size_bytes, value.sha256),
    )


async def chunks(requests: AsyncIterator[pb.CreateDatasetRequest]) -> AsyncIterator[bytes]:
    """Yield the bytes of all messages after the header."""
    async for request in requests:
        if request.WhichOneof("content") != "chunk":
            raise RequestInvalid(violations=[Violation("chunk", "must be in every message after the header")])
        yield request.chunk


def dataset_name(name: str) -> tuple[str, str]:
    """Return (project, dataset id)."""
    parsed = names.parse(name, "datasets")
    return parsed.project, parsed.ids[0]


def dataset_to_proto(version: DatasetVersion) -> pb.Dataset:
    message = pb.Dataset(
        name=names.dataset(version.project, version.dataset_id),
        display_name=str(version.report.get("display_name", "")),
        version=version.version,
        version_id=version.id,
        family=version.family,
        format=_FORMATS_BACK.get(version.format, pb.DATASET_FORMAT_UNSPECIFIED),
        classes=version.classes,
        manifest_sha256=version.manifest_sha256,
        size_bytes=version.size_bytes,
        report=to_struct({key: value for key, value in version.report.items() if key != "display_name"}),
        create_time=timestamp(version.create_time),
    )
    for split, counts in version.counts.items():
        for unit, count in counts.items():
            message.splits[split].counts[unit] = count
    return message
