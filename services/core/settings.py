"""The process environment as one typed object. Only entry points and composition roots read it.

Every field is an environment variable `TRAINYARD_<NAME>`, or a file `trainyard_<name>` in /run/secrets, where
containers get their secrets (`TRAINYARD_SECRETS_DIR` names another folder). The defaults are the embedded platform:
SQLite, local files and a broker of files under one state directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.core import queues

Port = Annotated[int, Field(ge=0, le=65535)]


def _default_state_dir() -> Path:
    return Path.home() / ".trainyard"


def _secrets_dirs() -> list[Path]:
    # A folder that is not there would be warned of at every start.
    folder = Path(os.environ.get("TRAINYARD_SECRETS_DIR", "/run/secrets"))
    return [folder] if folder.is_dir() else []


class Timings(BaseModel):
    """Every interval of the job protocol, in seconds (RELIABILITY: timings)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_ttl: float = 30.0
    heartbeat: float = 5.0
    reap_interval: float = 5.0
    dispatch_interval: float = 2.0
    redispatch_after: float = 30.0
    preempt_after: float = Field(
        600.0, description="How long a preemptible job runs before it may be asked to give way."
    )
    term_grace: float = Field(20.0, description="From SIGTERM to SIGKILL of a trainer asked to stop.")
    drain_budget: float = 120.0
    no_contact_limit: float = Field(900.0, description="How long a trainer runs on without the database.")
    stall_floor: float = Field(
        300.0, description="A trainer without a step for this long, or 20 median steps, is stuck."
    )
    retry_base: float = 10.0
    retry_cap: float = 600.0
    disk_full_delay: float = Field(60.0, description="Until the next attempt of a job that found its disk full.")
    reconcile_interval: float = 10.0
    serving_start_limit: float = Field(
        120.0,
        description="A version whose own workers take longer to load is given up on for 10 minutes; one that came up "
        "before is tried again sooner.",
    )
    serving_restart_limit: int = Field(5, description="So is one whose workers ended this often while starting.")
    collect_interval: float = 3600.0


class Settings(BaseSettings):
    """Where the parts are and how patient they are."""

    model_config = SettingsConfigDict(
        env_prefix="TRAINYARD_", env_nested_delimiter="__", frozen=True, secrets_dir=_secrets_dirs()
    )

    state_dir: Path = Field(default_factory=_default_state_dir, description="Everything the embedded default keeps.")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite under state_dir.")
    object_store_url: str = Field(
        "", description="s3://host:port/bucket or file:///path; empty: files under state_dir."
    )
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = True
    s3_public_url: str = Field(
        "",
        description="https://host:port where clients reach the S3 store, for download links; empty: as the platform does.",
    )
    s3_region: str = "us-east-1"
    backup_s3_access_key: SecretStr = Field(SecretStr(""), description="Of backups at s3://; empty: that of objects.")
    backup_s3_secret_key: SecretStr = SecretStr("")
    broker_url: str = Field("", description="Celery broker URL; empty: files under state_dir.")

    host: str = Field("127.0.0.1", description="Address the servers of this process bind to.")
    api_port: Port = 7070
    metrics_port: Port = Field(0, description="Port of this process's /metrics; 0: none.")
    health_port: Port = Field(0, description="Port where the API answers health checks without TLS; 0: none.")
    tls_cert_file: Path | None = Field(
        None, description="Certificate chain of the API in PEM; with its key it turns TLS on."
    )
    tls_key_file: Path | None = Field(None, description="Key of `tls_cert_file` in PEM.")
    tls_client_ca_file: Path | None = Field(None, description="Clients must show a certificate of this authority.")
    bootstrap_token_file: Path | None = Field(
        None, description="Holds a token of an administrator that `services.up.migrate` makes valid."
    )
    api_upload_limit_bytes: int = 20 * 2**30
    api_calls_per_second: float = Field(
        200.0,
        gt=0,
        description="Calls one token may make, five times as many one address; above it they wait up to a second, or "
        "are refused with a time to wait.",
    )
    api_gallery_identities: int = Field(100_000, ge=1, description="Most identities of one gallery of faces.")
    api_streams_per_caller: int = Field(2000, ge=1, description="Streams one address or token may have open.")
    dataset_url_hosts: str = Field(
        "",
        description="Hosts (`host` or `host:port`, by comma) that datasets may be fetched from though they are internal "
        "or speak plain http. All others must be public and speak https on port 443.",
    )

    worker_id: str = Field("", description="Stable name of this worker; empty: host and pid.")
    worker_queues: Annotated[str, AfterValidator(queues.check_names)] = Field(
        "train.cpu,serve.build", description="Queues this worker consumes, by comma."
    )
    worker_slots: int = Field(1, ge=1, description="Attempts at a time: one per GPU, or one on a CPU.")
    worker_threads: int = Field(0, ge=0, description="Intra-op threads per trainer; 0: the cores divided by the slots.")
    worker_memory_limit_bytes: int = Field(
        0,
        ge=0,
        description="Memory of one trainer with its loaders, over which it is ended; 0: the kernel's limit only.",
    )
    worker_device: Literal["auto", "cpu", "cuda"] = "auto"
    worker_slot_gpus: int = Field(
        1,
        ge=1,
        le=64,
        description="GPUs of one slot: N for a worker of the queue train.gpu.xN, whose jobs need as many.",
    )
    cache_limit_bytes: int = 50 * 2**30

    serving_threads: int = Field(1, ge=1, description="Intra-op threads of one TorchServe worker process.")
    serving_memory_limit_bytes: int = Field(
        8 * 2**30, ge=0, description="Memory of one TorchServe worker process, over which it is replaced; 0: no limit."
    )
    serving_device: Literal["cpu", "cuda"] = "cpu"
    serving_precision: Literal["auto", "fp32", "int8"] = Field(
        "auto",
        description="Read by API servers, for what is deployed from then on: fp32: nothing else; auto: or bf16, if faster "
        "and within the parity gate; int8: or bf16 or int8.",
    )
    torchserve_inference_port: Port = 7080
    torchserve_management_port: Port = 7081
    torchserve_metrics_port: Port = 7082
    torchserve_grpc_port: Port = 7083
    torchserve_grpc_management_port: Port = 7084
    torchserve_dir: Path | None = Field(
        None, description="Model store, configuration and logs; empty: under state_dir."
    )
    agent_id: str = Field("", description="Stable name of this agent; empty: the host name.")
    agent_advertise_host: str = Field("", description="Host others reach this TorchServe by; empty: `host`.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_json: bool = True
    timings: Timings = Timings()

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'metadata.sqlite3'}"

    @property
    def resolved_object_store_url(self) -> str:
        return self.object_store_url or f"file://{self.state_dir / 'objects'}"

    @property
    def resolved_broker_url(self) -> str:
        return self.broker_url or f"files://{self.state_dir / 'broker'}"

    @property
    def resolved_torchserve_dir(self) -> Path:
        return self.torchserve_dir or self.state_dir / "torchserve"
