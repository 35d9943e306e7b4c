"""Links to stored files, from a real S3 server: each opens one object, for a quarter of an hour."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest
from trainyard.v1 import model_pb2 as pb
from trainyard.v1 import model_pb2_grpc

from services.core.roles import Role
from services.core.settings import Settings
from services.db.database import Database
from services.storage.local import LocalStore
from services.storage.minio import MinioStore, S3Endpoint
from tests.integration.api.failures import refused
from tests.integration.identity.conftest import Town, api_server
from tests.integration.identity.wire import call
from tests.integration.identity.world import SECRET, Estate, furnish
from tests.stack.identity import admit, bearer
from tests.stack.install import required_parts
from tests.stack.minio import minio_server

QUARTER = timedelta(minutes=15)


@dataclass(frozen=True)
class Yard:
    """A server over a bucket with two projects, and a viewer of one of them."""

    red: Estate
    blue: Estate
    endpoint: S3Endpoint
    models: model_pb2_grpc.ModelServiceStub
    token: str

    def link(self, name: str, file: str = "") -> pb.CreateDownloadLinkResponse:
        request = pb.CreateDownloadLinkRequest(name=name, file=file)
        return self.models.CreateDownloadLink(request, metadata=bearer(self.token), timeout=20)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    directory = tmp_path_factory.mktemp("links")
    settings = Settings(state_dir=directory)
    database = Database(settings.resolved_database_url)
    database.migrate()
    with required_parts(), minio_server(directory / "minio") as minio:
        endpoint = S3Endpoint(minio.endpoint, "links", minio.access_key, minio.secret_key, is_secure=False)
        store = MinioStore(endpoint)
        red, blue = (furnish(database, store, directory / name, name, "http://127.0.0.1:1") for name in ("red", "blue"))
        token = admit(database, "red", Role.VIEWER)
        with api_server(settings, database, store) as address, grpc.insecure_channel(address) as channel:
            yield Yard(red, blue, endpoint, model_pb2_grpc.ModelServiceStub(channel), token)
    database.dispose()


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        content: bytes = response.read()
    return content


@pytest.mark.parametrize(
    ("kind", "file"), [("artifact", ""), ("checkpoint", "content.txt"), ("model_version", "content.txt")]
)
def test_a_link_opens_the_file_for_a_quarter_of_an_hour(yard: Yard, kind: str, file: str) -> None:
    before = datetime.now(UTC)

    made = yard.link(getattr(yard.red, kind), file)

    assert read(made.url) == SECRET.encode()
    assert made.header.size_bytes == len(SECRET)
    assert parse_qs(urlsplit(made.url).query)["X-Amz-Expires"] == ["900"]
    ends = made.expire_time.ToDatetime(UTC)
    assert before + QUARTER <= ends <= datetime.now(UTC) + QUARTER


def test_a_link_opens_nothing_else(yard: Yard) -> None:
    url = yard.link(yard.red.artifact).url
    own_other, foreign = url.replace("sample-6", "sample-5"), url.replace("/red/", "/blue/")
    assert len({url, own_other, foreign}) == 3

    for changed in (own_other, foreign, url.replace("Expires=900", "Expires=9000")):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            read(changed)


def test_links_are_signed_for_the_address_that_clients_reach(yard: Yard) -> None:
    public = replace(yard.endpoint, public_address="objects.example.org", is_public_secure=True)

    url = MinioStore(public).presigned_get("projects/red/x", 900)

    assert url is not None
    assert url.startswith("https://objects.example.org/links/projects/red/x?")


def test_a_store_without_a_server_says_what_to_use_instead(town: Town) -> None:
    assert isinstance(town.store, LocalStore)
    path = "/trainyard.v1.ModelService/CreateDownloadLink"

    refusal = refused(lambda: call(town.channel, path, {"name": town.red.artifact}, bearer(town.token("red"))))

    assert refusal.code == grpc.StatusCode.UNIMPLEMENTED
    assert "use DownloadArtifact" in refusal.message
