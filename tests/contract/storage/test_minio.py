"""What only a server can do, and what happens when it does not answer."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from services.core.errors import IntegrityError, StoreUnavailable
from services.core.settings import Settings
from services.storage.minio import MinioStore, S3Endpoint
from services.storage.open import open_store
from tests.stack.minio import MinioServer, minio_server


def test_a_presigned_address_reads_this_one_object(minio_store: MinioStore) -> None:
    minio_store.put("a/one", b"hello")
    minio_store.put("a/two", b"secret")

    address = minio_store.presigned_get("a/one", 60)

    assert address is not None
    with urllib.request.urlopen(address, timeout=10) as response:
        assert response.read() == b"hello"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address.replace("a/one", "a/two"), timeout=10)


def test_a_presigned_address_writes_this_one_object(minio_store: MinioStore) -> None:
    address = minio_store.presigned_put("uploads/u1/data.zip", 60)

    assert address is not None
    request = urllib.request.Request(address, data=b"archive", method="PUT")
    with urllib.request.urlopen(request, timeout=10):
        pass

    assert minio_store.get("uploads/u1/data.zip") == b"archive"
    assert minio_store.stat("uploads/u1/data.zip").sha256 is None


def test_the_settings_open_a_bucket_that_does_not_exist_yet(minio: MinioServer) -> None:
    settings = Settings(
        object_store_url=f"s3://{minio.endpoint}/fresh-bucket",
        s3_access_key=minio.access_key,
        s3_secret_key=minio.secret_key,
        s3_secure=False,
    )

    open_store(settings).put("a", b"x")

    assert open_store(settings).get("a") == b"x"


def test_an_object_of_several_parts_keeps_its_digest(minio_store: MinioStore, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        for n in range(70):
            large.write(bytes([n]) * (1 << 20))

    info = minio_store.put_file("large", tmp_path / "large")

    assert minio_store.get_file("large", tmp_path / "copy").sha256 == info.sha256
    assert minio_store.stat("large") == info


def test_a_source_that_changes_between_hashing_and_sending_leaves_no_object(minio_store: MinioStore) -> None:
    class Changing(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            self.getbuffer()[0:1] = b"!"
            return super().seek(offset, whence)

    with pytest.raises(IntegrityError, match="changed"):
        minio_store.put("a", Changing(b"hello"))

    assert not minio_store.exists("a")


def test_wrong_keys_say_what_the_store_answered_and_name_no_secret(minio: MinioServer) -> None:
    store = MinioStore(S3Endpoint(minio.endpoint, "b-wrong", "nobody", "wrong-secret", is_secure=False))

    with pytest.raises(StoreUnavailable, match="AccessDenied") as caught:
        store.put("a", b"x")

    assert "wrong-secret" not in str(caught.value)


def test_an_outage_is_reported_and_over_when_the_server_is_back(tmp_path: Path) -> None:
    with minio_server(tmp_path / "minio") as server:
        store = MinioStore(S3Endpoint(server.endpoint, "bucket", server.access_key, server.secret_key, is_secure=False))
        store.put("a", b"x")
        server.stop()

        for call in (
            lambda: store.get("a"),
            lambda: store.put("b", b"y"),
            lambda: store.stat("a"),
            lambda: list(store.list("")),
        ):
            with pytest.raises(StoreUnavailable, match=server.endpoint):
                call()

        server.start()
        assert store.get("a") == b"x"
        assert not store.exists("b")
