"""Objects in a bucket of any S3 endpoint, through the `minio` client.

The server makes an object visible only when its last byte is there. The sha256 travels as user
metadata, so it must be known before the upload: sources are read twice.
"""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from services.core.errors import IntegrityError, ObjectNotFound, StoreUnavailable
from services.storage.digest import HashingReader, copy_hashing, hash_file, hash_stream, require_sha256, whole_file
from services.storage.port import CHUNK_BYTES, DEFAULT_CONTENT_TYPE, ObjectInfo, check_key, check_prefix

_PART_BYTES = 64 << 20
_MEMORY_BYTES = 8 << 20
_DIGEST_HEADER = "x-amz-meta-sha256"
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchObject", "ResourceNotFound"})
_BUCKET_IS_THERE = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})


@dataclass(frozen=True, slots=True)
class S3Endpoint:
    """Where the bucket is and who asks."""

    address: str
    """`host:port` without a scheme."""
    bucket: str
    access_key: str
    secret_key: str
    is_secure: bool = True
    public_address: str = ""
    """Where others reach the same store; empty: at `address`."""
    is_public_secure: bool = True
    region: str = "us-east-1"


class MinioStore:
    """An object store in one bucket, which is created on first use. Threads may share it."""

    def __init__(self, endpoint: S3Endpoint, *, connect_seconds: float = 5.0, read_seconds: float = 60.0) -> None:
        self._bucket = endpoint.bucket
        self._address = endpoint.address
        self._region = endpoint.region
        self._lock = threading.Lock()
        self._has_bucket = False
        self._client = Minio(
            endpoint.address,
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            secure=endpoint.is_secure,
            region=endpoint.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
                maxsize=16,
                retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
            ),
        )

        # An address is signed for the host that is asked, and signing with a known region asks nobody.
        self._signer = self._client
        if endpoint.public_address:
            self._signer = Minio(
                endpoint.public_address,
                access_key=endpoint.access_key,
                secret_key=endpoint.secret_key,
                secure=endpoint.is_public_secure,
                region=endpoint.region,
            )

    def put(
        self,
        key: str,
        source: BinaryIO | bytes,
        *,
        size_bytes: int | None = None,
        content_type: str = DEFAULT_CONTENT_TYPE,
    ) -> ObjectInfo:
        check_key(key)
        with _rewindable(source) as stream:
            start = stream.tell()
            length, digest = hash_stream(stream)
            if size_bytes is not None and length != size_bytes:
                raise IntegrityError(f"{key}: the source has {length} bytes, announced were {size_bytes}")
            stream.seek(start)
            self._upload(key, stream, ObjectInfo(key, length, digest), content_type)
        return ObjectInfo(key, length, digest)

    def put_file(self, key: str, path: Path, *, content_type: str = DEFAULT_CONTENT_TYPE) -> ObjectInfo:
        check_key(key)
        length, digest = hash_file(path)
        with path.open("rb") as source:
            self._upload(key, source, ObjectInfo(key, length, digest), content_type)
        return ObjectInfo(key, length, digest)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        with self._response(check_key(key)) as response:
            yield cast("BinaryIO", io.BufferedReader(_Body(response, self, key), CHUNK_BYTES))

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        target = io.BytesIO()
        self._copy(key, target, sha256)
        return target.getvalue()

    def get_file(self, key: str, path: Path, *, sha256: str | None = None) -> ObjectInfo:
        with whole_file(path) as target:
            return self._copy(key, target, sha256)

    def stat(self, key: str) -> ObjectInfo:
        with self._faults_translated(check_key(key)):
            found = self._client.stat_object(self._bucket, key)
        return ObjectInfo(key, found.size or 0, (found.metadata or {}).get(_DIGEST_HEADER))

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except ObjectNotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        try:
            with self._faults_translated(check_key(key)):
                self._client.remove_object(self._bucket, key)
        except ObjectNotFound:
            return

    def delete_prefix(self, prefix: str) -> None:
        check_prefix(prefix)
        doomed = [DeleteObject(info.key) for info in self.list(prefix)]
        with self._faults_translated(prefix):
            # The client sends nothing before its result is read.
            failed = list(self._client.remove_objects(self._bucket, doomed))
        if failed:
            raise StoreUnavailable(f"{len(failed)} objects under {prefix} were not deleted: {failed[0].code}")

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if prefix:
            check_prefix(prefix)
        try:
            with self._faults_translated(prefix):
                for found in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                    yield ObjectInfo(found.object_name or "", found.size or 0, None)
        except ObjectNotFound:
            return

    def presigned_get(self, key: str, seconds: int) -> str | None:
        with self._faults_translated(check_key(key)):
            return self._signer.presigned_get_object(self._bucket, key, expires=timedelta(seconds=seconds))

    def presigned_put(self, key: str, seconds: int) -> str | None:
        self._make_bucket()
        with self._faults_translated(check_key(key)):
            return self._signer.presigned_put_object(self._bucket, key, expires=timedelta(seconds=seconds))

    def _upload(self, key: str, source: BinaryIO, promised: ObjectInfo, content_type: str) -> None:
        """Send exactly the promised bytes; a source that changed since it was hashed leaves no object."""
        self._make_bucket()
        reader = HashingReader(source)
        with self._faults_translated(key):
            self._client.put_object(
                self._bucket,
                key,
                cast("BinaryIO", reader),
                length=promised.size_bytes,
                content_type=content_type,
                metadata={_DIGEST_HEADER: promised.sha256 or ""},
                part_size=_PART_BYTES,
            )
        if reader.sha256 != promised.sha256:
            self.delete(key)
            raise IntegrityError(f"{key}: the source changed while it was uploaded")

    def _copy(self, key: str, target: BinaryIO, sha256: str | None) -> ObjectInfo:
        with self._response(check_key(key)) as response:
            # Only the reading side is the store's: a full local disk stays the OSError it is.
            size_bytes, digest = copy_hashing(cast("BinaryIO", _Body(response, self, key)), target)
            recorded = response.headers.get(_DIGEST_HEADER)
        require_sha256(key, digest, sha256)
        require_sha256(key, digest, recorded)
        return ObjectInfo(key, size_bytes, digest)

    @contextmanager
    def _response(self, key: str) -> Iterator[Any]:
        with self._faults_translated(key):
            response = self._client.get_object(self._bucket, key)
        try:
            yield response
        finally:
            response.close()
            response.release_conn()

    def _make_bucket(self) -> None:
        with self._lock:
            if self._has_bucket:
                return
            with self._faults_translated(self._bucket):
                if not self._client.bucket_exists(self._bucket):
                    self._create_bucket()
            self._has_bucket = True

    def _create_bucket(self) -> None:
        try:
            self._client.make_bucket(self._bucket, location=self._region)
        except S3Error as err:
            if err.code not in _BUCKET_IS_THERE:
                raise

    @contextmanager
    def _faults_translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (MinioException, HTTPError, OSError) as err:
            self.raise_fault(key, err)

    def raise_fault(self, key: str, err: Exception) -> NoReturn:
        """Raise our error for one of the client's; the message names no credentials and no stack."""
        if isinstance(err, S3Error) and err.code in _MISSING:
            raise ObjectNotFound(f"no object {key}") from err
        said = err.code if isinstance(err, S3Error) else type(err).__name__
        raise StoreUnavailable(f"the object store at {self._address} does not serve this request ({said})") from err


class _Body(io.RawIOBase):
    """A response as a raw stream whose faults are ours."""

    def __init__(self, response: Any, store: MinioStore, key: str) -> None:
        self._response = response
        self._store = store
        self._key = key

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk: bytes = self._response.read(len(buffer))
        except (HTTPError, OSError) as err:
            self._store.raise_fault(self._key, err)
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def _rewindable(source: BinaryIO | bytes) -> Iterator[BinaryIO]:
    """Yield the source itself where it can be read twice, else a copy that spills to disk when large."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif source.seekable():
        yield source
    else:
        with tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES) as copy:
            copy_hashing(source, cast("BinaryIO", copy))
            copy.seek(0)
            yield cast("BinaryIO", copy)
