"""Every table, its named constraints and the partial indexes of the hot queries.

Core tables, not mapped classes: the stores are compare-and-set statements, and what leaves a store is
a frozen dataclass. The migrations make exactly this; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    type_coerce,
)

from services.db import append_only
from services.db.types import CleanText, Document, UtcTime, epoch, short_id

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _time(name: str) -> Column[Any]:
    return Column(name, UtcTime(), nullable=False)


def _time_or_null(name: str) -> Column[Any]:
    return Column(name, UtcTime())


def _count(name: str) -> Column[Any]:
    return Column(name, Integer, nullable=False)


def _text(name: str) -> Column[Any]:
    return Column(name, Text, nullable=False)


def _document(name: str) -> Column[Any]:
    return Column(name, Document(), nullable=False)


datasets = Table(
    "datasets",
    metadata,
    _text("project"),
    _text("dataset_id"),
    _count("last_version"),
    PrimaryKeyConstraint("project", "dataset_id"),
)

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("id", short_id(), primary_key=True),
    _text("project"),
    _text("dataset_id"),
    _count("version"),
    _text("request_id"),
    _text("request_sha256"),
    _text("family"),
    _text("format"),
    _document("classes"),
    _document("counts"),
    _text("manifest_key"),
    _text("manifest_sha256"),
    Column("size_bytes", BigInteger, nullable=False),
    _document("report"),
    _time("create_time"),
    _time_or_null("delete_time"),
    _time_or_null("purge_time"),
    UniqueConstraint("project", "dataset_id", "version"),
    UniqueConstraint("project", "request_id"),
    ForeignKeyConstraint(["project", "dataset_id"], ["datasets.project", "datasets.dataset_id"]),
    Index(None, "project", "create_time", "id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", short_id(), primary_key=True),
    _text("project"),
    _text("request_id"),
    _text("request_sha256"),
    _text("recipe"),
    _text("preset"),
    _text("display_name"),
    _document("labels"),
    Column("dataset_version_id", short_id(), ForeignKey("dataset_versions.id"), nullable=False),
    _text("dataset_id"),
    _text("model_id"),
    _document("spec"),
    _text("queue"),
    _count("priority"),
    _text("state"),
    _text("desired"),
    _count("attempt"),
    _count("max_attempts"),
    _count("uncharged_restarts"),
    _count("no_progress"),
    Column("token", BigInteger, nullable=False),
    Column("lease_owner", Text),
    _time_or_null("lease_expire_time"),
    _time_or_null("not_before_time"),
    _time_or_null("dispatch_time"),
    Column("checkpoint_step", BigInteger, nullable=False),
    Column("checkpoint_id", short_id()),
    _count("checkpoint_count"),
    Column("model_version", Integer),
    Column("failure_reason", Text),
    Column("failure_message", CleanText),
    Column("failure_log", CleanText),
    Column("progress_step", BigInteger, nullable=False),
    Column("progress_total", BigInteger, nullable=False),
    Column("event_seq", BigInteger, nullable=False),
    _time("create_time"),
    _time_or_null("start_time"),
    _time_or_null("end_time"),
    _time("update_time"),
    # Code from before these columns leaves them out while an upgrade rolls: its jobs come first, and stay put.
    Column("is_preemptible", Boolean, nullable=False, server_default=false()),
    Column("order_time", UtcTime(), nullable=False, server_default=epoch()),
    Column("source_checkpoint_id", short_id()),
    UniqueConstraint("project", "request_id"),
    CheckConstraint("state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')", name="state"),
    CheckConstraint("desired IN ('run', 'cancel', 'pause', 'yield')", name="desired"),
    CheckConstraint("(state = 'running') = (lease_owner IS NOT NULL)", name="lease"),
    CheckConstraint("(state IN ('queued', 'running', 'paused')) = (end_time IS NULL)", name="end"),
    Index(None, "project", "create_time", "id"),
    Index(None, "project", "state", "create_time", "id"),
    Index(None, "project", "recipe", "state", "create_time", "id"),
)

WHERE = "where"
"""In an index's `info`: the condition of a partial one."""

IS_QUEUED = jobs.c.state == literal_column("'queued'")
"""Spelled as a literal: a planner matches a partial index only by the constant itself, not by a parameter."""
IS_RUNNING = jobs.c.state == literal_column("'running'")
IS_LIVE = jobs.c.state.in_([literal_column("'queued'"), literal_column("'running'"), literal_column("'paused'")])
"""Not ended: what it needs must stay."""

STARTS_FROM = type_coerce(jobs.c.spec, JSON)["init_from", "id"].as_string()
"""Id of the dataset version, checkpoint or model version whose weights a job starts from."""


def _partial(name: str, condition: Any, *columns: Any, unique: bool = False) -> Index:
    # Saying it to Postgres too would import its dialect, a tenth of a second that the embedded default never needs.
    return Index(name, *columns, sqlite_where=condition, info={WHERE: condition}, unique=unique)


def complete_for_postgres() -> None:
    """Tell Postgres's dialect of the partial indexes, before its schema is made from or compared with these tables."""
    for table in metadata.tables.values():
        for index in table.indexes:
            if WHERE in index.info:
                index.dialect_kwargs["postgresql_where"] = index.info[WHERE]


_partial("ix_jobs_waiting", IS_QUEUED, jobs.c.queue, jobs.c.project, jobs.c.order_time)
_partial("ix_jobs_busy", IS_RUNNING, jobs.c.queue, jobs.c.project)
_partial("ix_jobs_running", IS_RUNNING, jobs.c.lease_expire_time)
_partial("ix_jobs_live_dataset", IS_LIVE, jobs.c.dataset_version_id)
_partial("ix_jobs_live_project", IS_LIVE, jobs.c.project, jobs.c.state)
_partial("ix_jobs_live_source", IS_LIVE & jobs.c.source_checkpoint_id.is_not(None), jobs.c.source_checkpoint_id)

turns = Table(
    "turns",
    metadata,
    _text("queue"),
    _text("project"),
    _time("claim_time"),
    PrimaryKeyConstraint("queue", "project"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", short_id(), ForeignKey("jobs.id"), nullable=False),
    Column("token", BigInteger, nullable=False),
    _count("attempt"),
    _text("worker_id"),
    _text("state"),
    Column("host", Text),
    Column("boot_id", Text),
    Column("pid", Integer),
    Column("pid_start", Float(53)),
    Column("device", Text),
    Column("failure_reason", Text),
    Column("failure_message", CleanText),
    Column("exit_code", Integer),
    Column("signal", Integer),
    _time("start_time"),
    _time_or_null("end_time"),
    Column("num_lines", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("job_id", "token"),
    CheckConstraint("(state = 'running') = (end_time IS NULL)", name="end"),
)
_partial("ix_attempts_open", attempts.c.state == literal_column("'running'"), attempts.c.worker_id)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", short_id(), primary_key=True),
    Column("job_id", short_id(), ForeignKey("jobs.id"), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False),
    _count("ordinal"),
    _text("state"),
    _text("prefix"),
    _text("manifest_sha256"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("metric", Float(53)),
    _document("files"),
    _time("create_time"),
    UniqueConstraint("job_id", "step", "token"),
    CheckConstraint("state IN ('committed', 'corrupt', 'deleting')", name="state"),
)
_partial(
    "uq_checkpoints_committed",
    checkpoints.c.state == literal_column("'committed'"),
    checkpoints.c.job_id,
    checkpoints.c.step,
    unique=True,
)

events = Table(
    "events",
    metadata,
    Column("job_id", short_id(), ForeignKey("jobs.id"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False),
    _text("kind"),
    _document("payload"),
    _time("create_time"),
    PrimaryKeyConstraint("job_id", "seq"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", short_id(), primary_key=True),
    Column("job_id", short_id(), ForeignKey("jobs.id"), nullable=False),
    Column("token", BigInteger, nullable=False),
    _text("name"),
    _text("kind"),
    _text("key"),
    Column("size_bytes", BigInteger, nullable=False),
    _text("sha256"),
    Column("step", BigInteger, nullable=False),
    _text("content_type"),
    _time("create_time"),
    UniqueConstraint("job_id", "key"),
    Index(None, "job_id", "create_time", "id"),
)

models = Table(
    "models",
    metadata,
    _text("project"),
    _text("model_id"),
    _count("last_version"),
    PrimaryKeyConstraint("project", "model_id"),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", short_id(), primary_key=True),
    _text("project"),
    _text("model_id"),
    _count("version"),
    Column("job_id", short_id(), ForeignKey("jobs.id"), nullable=False),
    Column("checkpoint_id", short_id()),
    _text("recipe"),
    _document("config"),
    _document("metrics"),
    _text("bundle_prefix"),
    _text("bundle_sha256"),
    Column("size_bytes", BigInteger, nullable=False),
    _time("create_time"),
    UniqueConstraint("project", "model_id", "version"),
    ForeignKeyConstraint(["project", "model_id"], ["models.project", "models.model_id"]),
    Index(None, "project", "create_time", "id"),
)

archives = Table(
    "archives",
    metadata,
    Column("id", short_id(), primary_key=True),
    Column("model_version_id", short_id(), ForeignKey("model_versions.id"), nullable=False),
    _text("target"),
    _text("state"),
    _count("attempt"),
    Column("token", BigInteger, nullable=False),
    Column("lease_owner", Text),
    _time_or_null("lease_expire_time"),
    _time_or_null("not_before_time"),
    _time_or_null("dispatch_time"),
    Column("key", Text),
    Column("sha256", Text),
    Column("size_bytes", BigInteger),
    Column("form", Text),
    _document("parity"),
    Column("message", CleanText, nullable=False),
    _time("create_time"),
    _time("update_time"),
    UniqueConstraint("model_version_id", "target"),
    CheckConstraint("state IN ('queued', 'building', 'ready', 'failed')", name="state"),
    CheckConstraint("(state = 'building') = (lease_owner IS NOT NULL)", name="lease"),
)
_partial(
    "ix_archives_open",
    archives.c.state.in_([literal_column("'queued'"), literal_column("'building'")]),
    archives.c.create_time,
)

deployments = Table(
    "deployments",
    metadata,
    Column("id", short_id(), primary_key=True),
    _text("project"),
    _text("deployment_id"),
    _text("request_id"),
    _text("request_sha256"),
    Column("model_version_id", short_id(), ForeignKey("model_versions.id"), nullable=False),
    Column("archive_id", short_id(), ForeignKey("archives.id"), nullable=False),
    Column("previous_archive_id", short_id(), ForeignKey("archives.id")),
    _count("workers"),
    _count("generation"),
    _time("create_time"),
    _time("update_time"),
    _time_or_null("delete_time"),
    UniqueConstraint("project", "deployment_id"),
    UniqueConstraint("project", "request_id"),
    Index(None, "project", "create_time", "id"),
)

agents = Table(
    "agents",
    metadata,
    Column("id", Text, primary_key=True),
    _text("inference_url"),
    _text("grpc_address"),
    _text("token"),
    _time_or_null("token_expire_time"),
    _time("report_time"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("agent_id", Text, ForeignKey("agents.id", ondelete="CASCADE"), nullable=False),
    Column("deployment_uid", short_id(), ForeignKey("deployments.id", ondelete="CASCADE"), nullable=False),
    _text("archive_sha256"),
    Column("is_ready", Boolean, nullable=False),
    Column("is_failed", Boolean, nullable=False),
    Column("message", CleanText, nullable=False),
    Column("generation", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("agent_id", "deployment_uid"),
    Index(None, "deployment_uid"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    _text("host"),
    _text("boot_id"),
    _count("pid"),
    _text("state"),
    _count("slots"),
    _document("queues"),
    _document("versions"),
    _time("start_time"),
    _time("heartbeat_time"),
    Column("is_disk_full", Boolean, nullable=False, server_default=false()),
    CheckConstraint("state IN ('active', 'draining')", name="state"),
)

devices = Table(
    "devices",
    metadata,
    Column("uuid", Text, primary_key=True),
    _text("host"),
    _text("name"),
    Column("memory_bytes", BigInteger, nullable=False),
    _text("state"),
    Column("reason", CleanText, nullable=False),
    _time("update_time"),
    CheckConstraint("state IN ('ok', 'quarantined')", name="state"),
    Index(None, "host"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", short_id(), primary_key=True),
    _text("kind"),
    _text("key"),
    _document("payload"),
    _count("tries"),
    _time("create_time"),
    _time("not_before_time"),
    _time_or_null("done_time"),
    UniqueConstraint("kind", "key"),
)
_partial("ix_outbox_pending", outbox.c.done_time.is_(None), outbox.c.not_before_time)

galleries = Table(
    "galleries",
    metadata,
    Column("id", short_id(), primary_key=True),
    _text("project"),
    _text("gallery_id"),
    _text("request_id"),
    _text("request_sha256"),
    _text("deployment_id"),
    Column("model_version_id", short_id(), ForeignKey("model_versions.id"), nullable=False),
    Column("keep_images", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False),
    _time("create_time"),
    _time("update_time"),
    Column("is_pinned", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("project", "gallery_id"),
    UniqueConstraint("project", "request_id"),
    Index(None, "project", "create_time", "id"),
)

identities = Table(
    "identities",
    metadata,
    Column("id", short_id(), primary_key=True),
    Column("gallery_uid", short_id(), ForeignKey("galleries.id", ondelete="CASCADE"), nullable=False),
    _text("identity_id"),
    _text("request_id"),
    _text("request_sha256"),
    Column("display_name", CleanText, nullable=False),
    _count("image_count"),
    Column("revision", BigInteger, nullable=False),
    _time("create_time"),
    UniqueConstraint("gallery_uid", "identity_id"),
    UniqueConstraint("gallery_uid", "request_id"),
    Index(None, "gallery_uid", "create_time", "id"),
    Index(None, "gallery_uid", "revision"),
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("identity_uid", short_id(), ForeignKey("identities.id", ondelete="CASCADE"), nullable=False),
    Column("model_version_id", short_id(), ForeignKey("model_versions.id"), nullable=False),
    Column("vector", LargeBinary, nullable=False),
    PrimaryKeyConstraint("identity_uid", "model_version_id"),
)

identity_images = Table(
    "identity_images",
    metadata,
    Column("id", short_id(), primary_key=True),
    Column("identity_uid", short_id(), ForeignKey("identities.id", ondelete="CASCADE"), nullable=False),
    _text("key"),
    Column("size_bytes", BigInteger, nullable=False),
    _text("sha256"),
    _document("landmarks"),
    UniqueConstraint("key"),
    Index(None, "identity_uid"),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("max_running_jobs", Integer),
    Column("max_queued_jobs", Integer),
    Column("max_stored_bytes", BigInteger),
    _time("create_time"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", short_id(), primary_key=True),
    Column("project", Text, ForeignKey("projects.id"), nullable=False),
    _text("role"),
    Column("note", CleanText, nullable=False),
    _text("sha256"),
    _time("create_time"),
    _time_or_null("expire_time"),
    _time_or_null("revoke_time"),
    CheckConstraint("role IN ('viewer', 'submitter', 'admin')", name="role"),
    Index(None, "project", "create_time", "id"),
)

audit_lines = Table(
    "audit_lines",
    metadata,
    Column("id", short_id(), primary_key=True),
    _text("project"),
    _text("token_id"),
    Column("peer", CleanText, nullable=False),
    _text("action"),
    Column("resource", CleanText, nullable=False),
    _text("outcome"),
    Column("request_id", CleanText, nullable=False),
    _time("create_time"),
    Index(None, "create_time", "id"),
    Index(None, "project", "create_time", "id"),
)
append_only.protect(audit_lines)
