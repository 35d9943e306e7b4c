"""From settings to a store. The only place that knows which kinds there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from services.core.errors import SettingsInvalid
from services.core.settings import Settings
from services.storage.local import LocalStore
from services.storage.port import ObjectStore

if TYPE_CHECKING:
    from services.storage.minio import S3Endpoint


def open_store(settings: Settings) -> ObjectStore:
    """Return the store of `settings.object_store_url`; nothing is created or contacted before it is used.

    Raises:
        SettingsInvalid: the address is of no store.
    """
    url = settings.resolved_object_store_url
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return LocalStore(Path(unquote(parts.path)))
    bucket = parts.path.strip("/")
    if parts.scheme == "s3" and parts.netloc and bucket and "/" not in bucket and "@" not in parts.netloc:
        # Its libraries take a tenth of a server's start; most stores on one machine are local.
        from services.storage.minio import MinioStore

        return MinioStore(_endpoint(settings, parts.netloc, bucket))
    raise SettingsInvalid(
        "TRAINYARD_OBJECT_STORE_URL must be s3://host:port/bucket or file:///path; "
        "keys belong in TRAINYARD_S3_ACCESS_KEY and TRAINYARD_S3_SECRET_KEY"
    )


def _endpoint(settings: Settings, address: str, bucket: str) -> S3Endpoint:
    from services.storage.minio import S3Endpoint

    public = urlsplit(settings.s3_public_url)
    if settings.s3_public_url and (public.scheme not in ("http", "https") or public.path.strip("/")):
        raise SettingsInvalid("TRAINYARD_S3_PUBLIC_URL must be http://host:port or https://host:port")
    return S3Endpoint(
        address=address,
        bucket=bucket,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        is_secure=settings.s3_secure,
        public_address=public.netloc,
        is_public_secure=public.scheme != "http",
        region=settings.s3_region,
    )
