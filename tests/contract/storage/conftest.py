from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.storage.local import LocalStore
from services.storage.minio import MinioStore, S3Endpoint
from services.storage.port import ObjectStore
from tests.stack.install import required_parts
from tests.stack.memory_store import MemoryStore
from tests.stack.minio import MinioServer, minio_server


@dataclass(frozen=True, slots=True)
class Backend:
    """A store and the way to spoil its bytes behind its back."""

    store: ObjectStore
    local_root: Path | None = None

    def flip_a_bit(self, key: str) -> None:
        """Change a stored object, its recorded digest untouched."""
        if isinstance(self.store, MemoryStore):
            self.store.flip_a_bit(key)
            return
        if self.local_root is not None:
            path = self.local_root / "objects" / key
            spoiled = bytearray(path.read_bytes())
            spoiled[len(spoiled) // 2] ^= 1
            path.write_bytes(bytes(spoiled))
            return
        assert isinstance(self.store, MinioStore)
        body = bytearray(self.store.get(key))
        digest = self.store.stat(key).sha256
        body[len(body) // 2] ^= 1
        self._overwrite(key, bytes(body), digest)

    def truncate(self, key: str) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.truncate(key)
            return
        if self.local_root is not None:
            path = self.local_root / "objects" / key
            path.write_bytes(path.read_bytes()[:-1])
            return
        self._overwrite(key, self.store.get(key)[:-1], self.store.stat(key).sha256)

    def _overwrite(self, key: str, body: bytes, digest: str | None) -> None:
        import io

        assert isinstance(self.store, MinioStore)
        self.store._client.put_object(
            self.store._bucket, key, io.BytesIO(body), len(body), metadata={"x-amz-meta-sha256": digest or ""}
        )


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with required_parts(), minio_server(tmp_path_factory.mktemp("minio")) as server:
        yield server


def endpoint(server: MinioServer, bucket: str) -> S3Endpoint:
    return S3Endpoint(server.endpoint, bucket, server.access_key, server.secret_key, is_secure=False)


@pytest.fixture(params=["memory", "local", "minio"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    if request.param == "memory":
        return Backend(MemoryStore())
    if request.param == "local":
        return Backend(LocalStore(tmp_path / "store"), tmp_path / "store")
    server: MinioServer = request.getfixturevalue("minio")
    return Backend(MinioStore(endpoint(server, f"b-{uuid.uuid4().hex}")))


@pytest.fixture
def store(backend: Backend) -> ObjectStore:
    return backend.store


@pytest.fixture
def minio_store(minio: MinioServer) -> MinioStore:
    return MinioStore(endpoint(minio, f"b-{uuid.uuid4().hex}"))
