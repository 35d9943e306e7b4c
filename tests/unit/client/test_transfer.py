"""Bytes that arrive whole and verified, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from trainyard.v1 import dataset_pb2, model_pb2

from services.client import transfer
from services.client.errors import TransferFailed
from services.client.transfer import ignore_progress, receive, upload_messages

CONTENT = b"weights" * 1000


def download(
    content: bytes = CONTENT, *, name: str = "w.bin", sha256: str = ""
) -> Iterator[model_pb2.DownloadArtifactResponse]:
    digest = sha256 or hashlib.sha256(content).hexdigest()
    header = model_pb2.DownloadHeader(file_name=name, size_bytes=len(content), sha256=digest)
    yield model_pb2.DownloadArtifactResponse(header=header)
    for start in range(0, len(content), 1000):
        yield model_pb2.DownloadArtifactResponse(chunk=content[start : start + 1000])


def test_a_download_into_a_folder_takes_the_name_of_the_server(tmp_path: Path) -> None:
    done = receive(download(), tmp_path, ignore_progress)

    assert done.path == tmp_path / "w.bin"
    assert done.path.read_bytes() == CONTENT


def test_a_download_reports_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    receive(download(), tmp_path / "mine", lambda done, total: seen.append((done, total)))

    assert seen[0] == (1000, 7000)
    assert seen[-1] == (7000, 7000)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param(lambda: download(sha256="0" * 64), id="other bytes"),
        pytest.param(lambda: iter(list(download())[:-1]), id="the end is missing"),
        pytest.param(lambda: iter(()), id="nothing at all"),
    ],
)
def test_a_download_that_is_not_what_was_announced_leaves_nothing(tmp_path: Path, messages: object) -> None:
    with pytest.raises(TransferFailed):
        receive(messages(), tmp_path, ignore_progress)  # type: ignore[operator]

    assert list(tmp_path.iterdir()) == []


def test_a_broken_download_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"old")

    with pytest.raises(TransferFailed):
        receive(download(sha256="0" * 64), tmp_path / "w.bin", ignore_progress)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("name", ["../w.bin", "/etc/w.bin", "", "a/../../w.bin"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TransferFailed, match="leads out of the folder"):
        receive(download(name=name), tmp_path, ignore_progress)


def test_an_upload_is_a_header_and_the_chunks_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    path.write_bytes(b"x" * (transfer.CHUNK_BYTES + 5))
    header = dataset_pb2.CreateDatasetHeader(dataset_id="digits", size_bytes=path.stat().st_size)
    seen: list[tuple[int, int]] = []

    first, *chunks = upload_messages(header, path, lambda done, total: seen.append((done, total)))

    assert first.header == header
    assert b"".join(message.chunk for message in chunks) == path.read_bytes()
    assert seen == [(transfer.CHUNK_BYTES, header.size_bytes), (header.size_bytes, header.size_bytes)]
