"""CreateDataset from an address, through a real server: imported like an upload, and only from where one may fetch."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from trainyard.v1 import dataset_pb2

from services.core.settings import Settings
from services.db.database import Database
from tests.builders import datasets as build
from tests.integration.api.conftest import Running, serving
from tests.integration.api.failures import refused
from tests.integration.hostile.peer import Peer, ok, peer, says


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return build.zipped(tmp_path / "pets.zip", build.coco().content()).read_bytes()


@contextmanager
def trusting(state_dir: Path, *hosts: str) -> Iterator[Running]:
    """Run a server whose operator trusts these hosts."""
    settings = Settings(state_dir=state_dir, dataset_url_hosts=",".join(hosts))
    database = Database(settings.resolved_database_url)
    database.migrate()
    database.dispose()
    with serving(settings) as (running, _):
        yield running


def create(api: Running, url: str, *more: dataset_pb2.CreateDatasetRequest, **fields: Any) -> dataset_pb2.Dataset:
    header = dataset_pb2.CreateDatasetHeader(**{"dataset_id": "pets", "source_url": url, **fields})
    sent = [dataset_pb2.CreateDatasetRequest(header=header), *more]
    return api.datasets.CreateDataset(iter(sent), timeout=60).dataset


def address(running: Peer, path: str = "/pets.zip?signature=abc") -> str:
    return f"http://127.0.0.1:{running.port}{path}"


def test_an_archive_at_a_trusted_address_becomes_a_dataset_and_a_repeated_call_the_same_one(
    tmp_path: Path, archive: bytes
) -> None:
    with peer(says(ok(archive))) as running, trusting(tmp_path / "state", f"127.0.0.1:{running.port}") as api:
        digest = hashlib.sha256(archive).hexdigest()
        first = create(api, address(running), request_id="once", sha256=digest)
        second = create(api, address(running), request_id="once", sha256=digest)
        conflict = refused(lambda: create(api, address(running, "/other.zip"), request_id="once", sha256=digest))

    assert list(first.classes) == ["cat", "dog"]
    assert second == first
    assert conflict.code is grpc.StatusCode.ALREADY_EXISTS
    assert len(running.requests) == 1
    assert list((tmp_path / "state" / "imports").iterdir()) == [tmp_path / "state" / "imports" / "sweep.lock"]


def test_nothing_is_sent_to_an_address_that_nobody_trusts(tmp_path: Path, archive: bytes) -> None:
    with peer(says(ok(archive))) as running, trusting(tmp_path / "state", "example.com") as api:
        refusals = [
            refused(lambda url=url: create(api, url))
            for url in (
                address(running),
                f"https://127.0.0.1:{running.port}/pets.zip",
                f"https://localhost:{running.port}/",
                "https://127.0.0.1/pets.zip",
                "https://169.254.169.254/latest/meta-data/",
            )
        ]

    assert {refusal.code for refusal in refusals} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert all("header.source_url" in refusal.violations for refusal in refusals)
    assert running.requests == []


def test_what_is_fetched_is_checked_like_an_upload(tmp_path: Path) -> None:
    with peer(says(ok(b"no archive"))) as running, trusting(tmp_path / "state", f"127.0.0.1:{running.port}") as api:
        refusal = refused(lambda: create(api, address(running)))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a zip" in refusal.violations["archive"]


def test_a_server_that_has_it_not_is_named_without_the_secret_part_of_the_address(tmp_path: Path) -> None:
    answer = says(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    with peer(answer) as running, trusting(tmp_path / "state", f"127.0.0.1:{running.port}") as api:
        refusal = refused(lambda: create(api, address(running)))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SOURCE_UNAVAILABLE")
    assert "403" in refusal.message
    assert "signature" not in refusal.message


def test_an_address_and_chunks_do_not_go_together(tmp_path: Path) -> None:
    chunk = dataset_pb2.CreateDatasetRequest(chunk=b"PK")

    with trusting(tmp_path / "state", "127.0.0.1") as api:
        refusal = refused(lambda: create(api, "http://127.0.0.1:9/pets.zip", chunk))

    assert "chunk" in refusal.violations


def test_an_empty_chunk_is_refused(tmp_path: Path) -> None:
    header = dataset_pb2.CreateDatasetHeader(dataset_id="pets", size_bytes=10)
    sent = [dataset_pb2.CreateDatasetRequest(header=header), dataset_pb2.CreateDatasetRequest(chunk=b"")]

    with trusting(tmp_path / "state") as api:
        refusal = refused(lambda: api.datasets.CreateDataset(iter(sent), timeout=30))

    assert "empty" in refusal.violations["chunk"]


def test_a_caller_that_leaves_takes_the_fetch_along(tmp_path: Path) -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(ok(b"", length=10**6))
        while True:
            # Ends with an error once nobody is left to take it.
            connection.sendall(b"x" * 100)

    with peer(trickle) as running, trusting(tmp_path / "state", f"127.0.0.1:{running.port}") as api:
        header = dataset_pb2.CreateDatasetHeader(dataset_id="pets", source_url=address(running))
        call = api.datasets.CreateDataset.future(iter([dataset_pb2.CreateDatasetRequest(header=header)]))
        assert running.asked.wait(10)
        call.cancel()

        assert running.left.wait(10)
        assert api.create is not None
