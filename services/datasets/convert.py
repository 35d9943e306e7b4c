"""Datasets on the wire, and requests into the domain."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypedDict

from trainyard.v1 import dataset_pb2 as pb

from services.core import names
from services.core.errors import RequestInvalid, Violation
from services.core.texts import faults_of_request_id, faults_of_text
from services.datasets.split_rule import SplitRule
from services.datasets.upload import Expected
from services.db.datasets import DatasetVersion
from services.jobs.convert import timestamp
from services.rpc.structs import to_struct

_PREFIX = "DATASET_FORMAT_"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_FORMATS: dict[int, str | None] = {
    value: name.removeprefix(_PREFIX).lower() if value else None for name, value in pb.DatasetFormat.items()
}
_NAMES = {word: pb.DatasetFormat.Name(value) for value, word in _FORMATS.items() if word}


class HeaderFields(TypedDict):
    """What every way to create a dataset is told."""

    dataset_id: str
    family: str | None
    format: str | None
    rule: SplitRule
    display_name: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an upload is to become."""

    project: str
    fields: HeaderFields
    expected: Expected
    source_url: str
    """Where the archive is to be fetched from; empty: it arrives in chunks."""


def header(request: pb.CreateDatasetRequest | None) -> Header:
    """Read the first message of an upload.

    Raises:
        RequestInvalid: it is not a header, or names no dataset.
    """
    if request is None or request.WhichOneof("content") != "header":
        raise RequestInvalid(violations=[Violation("header", "must be the first message of the stream")])
    value = request.header
    project = names.parse_project(value.parent, field="header.parent")
    if violations := _faults(value):
        raise RequestInvalid(violations=violations)
    return Header(
        project=project,
        fields=HeaderFields(
            dataset_id=value.dataset_id,
            family=value.family or None,
            format=_FORMATS[value.format],
            rule=_rule(value),
            display_name=value.display_name,
            request_id=value.request_id,
        ),
        expected=Expected(value.size_bytes, value.sha256),
        source_url=value.source_url,
    )


def _faults(value: pb.CreateDatasetHeader) -> list[Violation]:
    """Return all that can be seen to be wrong before anything is sent."""
    found = [*names.faults_of_slug(value.dataset_id, field="header.dataset_id")]
    if value.format not in _FORMATS:
        found.append(Violation("header.format", "is not known; leave it out to detect it"))
    if not 0 <= value.val_fraction < 1:
        text = f"{value.val_fraction:g} must lie between 0 and 1; 0 means {SplitRule().val_fraction:g}"
        found.append(Violation("header.val_fraction", text))
    if value.sha256 and not _SHA256.fullmatch(value.sha256):
        found.append(Violation("header.sha256", "must be the 64 hexadecimal digits of the archive's digest"))
    found += faults_of_text(value.display_name, field="header.display_name")
    return found + faults_of_request_id(value.request_id, field="header.request_id")


def _rule(value: pb.CreateDatasetHeader) -> SplitRule:
    return SplitRule(val_fraction=value.val_fraction or SplitRule().val_fraction, seed=value.split_seed)


def check_end(request: pb.CreateDatasetRequest | None) -> None:
    """Refuse messages after a header with an address."""
    if request is not None:
        raise RequestInvalid(violations=[Violation("chunk", "must not follow a header with source_url")])


async def chunks(requests: AsyncIterator[pb.CreateDatasetRequest]) -> AsyncIterator[bytes]:
    """Yield the bytes of all messages after the header."""
    async for request in requests:
        if request.WhichOneof("content") != "chunk":
            raise RequestInvalid(violations=[Violation("chunk", "must be in every message after the header")])
        if not request.chunk:
            raise RequestInvalid(
                violations=[Violation("chunk", "must not be empty; end the stream after the last one")]
            )
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
        format=_NAMES.get(version.format),
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
