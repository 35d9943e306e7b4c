"""The Celery application, as every process of the platform makes it from its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu import Exchange, Queue
from kombu.transport import resolve_transport

from services.core.errors import SettingsInvalid
from services.core.settings import Settings

FILES_TRANSPORT = "services.broker.transport:FilesTransport"
PUBLISH_OPTIONS = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.2, "interval_max": 0.5}


def make_app(settings: Settings) -> Celery:
    """Return the application; connects to nothing until a message is sent or a worker starts.

    Raises:
        SettingsInvalid: the address of the broker is none.
    """
    check_url(settings.resolved_broker_url)
    app = Celery("trainyard", set_as_current=False)
    app.conf.update(
        worker_pool="threads",
        worker_concurrency=settings.worker_slots,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Late acknowledgement copies healthy long tasks and, in Celery 5.7.0, ends the worker when Redis restarts.
        task_acks_late=False,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        task_publish_retry=False,
        task_create_missing_queues=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        **_broker(settings.resolved_broker_url),
    )
    return app


def check_url(url: str) -> None:
    """Check the address of a broker without going there.

    Raises:
        SettingsInvalid: it is none, or of a kind of broker that cannot be used. It is not repeated: it may hold a
            password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
        if parts.scheme != "files":
            resolve_transport(parts.scheme)
    except (ValueError, KeyError, ImportError) as err:
        raise SettingsInvalid(
            "TRAINYARD_BROKER_URL must be redis://host:port/number, rediss:// or files:///path"
        ) from err


def select_queues(app: Celery, names: list[str]) -> None:
    """Declare the queues a worker consumes, each bound to an exchange of its own name."""
    app.conf.task_queues = [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in names]


def _broker(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme == "files":
        return _files(Path(parts.netloc + parts.path))
    if parts.scheme in ("redis", "rediss"):
        return _redis(url)
    return {"broker_url": url, "broker_transport_options": dict(PUBLISH_OPTIONS)}


def _files(folder: Path) -> dict[str, Any]:
    control = folder / "control"
    control.mkdir(parents=True, exist_ok=True)
    return {
        "broker_url": "filesystem://localhost//",
        "broker_transport": FILES_TRANSPORT,
        # Control messages go to a mailbox per worker; as files, those of dead workers would pile up.
        "worker_enable_remote_control": False,
        "broker_transport_options": {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(control),
        },
    }


def _redis(url: str) -> dict[str, Any]:
    return {
        "broker_url": url,
        # Reserved messages of a killed worker would wait an hour for the visibility timeout.
        "worker_disable_prefetch": True,
        "broker_transport_options": {
            "health_check_interval": 25,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "global_keyprefix": "trainyard:",
            **PUBLISH_OPTIONS,
        },
    }
