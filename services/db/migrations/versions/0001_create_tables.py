"""Create every table."""

import sqlalchemy as sa
from alembic import op

from services.db.types import CleanText, Document, UtcTime, short_id

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_agents()
    _create_datasets()
    _create_devices()
    _create_models()
    _create_outbox()
    _create_workers()
    _create_dataset_versions()
    _create_jobs()
    _create_artifacts()
    _create_attempts()
    _create_checkpoints()
    _create_events()
    _create_model_versions()
    _create_archives()
    _create_deployments()
    _create_replicas()


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)


TABLES = [
    "replicas",
    "deployments",
    "archives",
    "model_versions",
    "events",
    "checkpoints",
    "attempts",
    "artifacts",
    "jobs",
    "dataset_versions",
    "workers",
    "outbox",
    "models",
    "devices",
    "datasets",
    "agents",
]


def _create_agents() -> None:
    op.create_table(
        "agents",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("inference_url", sa.Text(), nullable=False),
        sa.Column("grpc_address", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("token_expire_time", UtcTime(), nullable=True),
        sa.Column("report_time", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
    )


def _create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "dataset_id", name=op.f("pk_datasets")),
    )


def _create_devices() -> None:
    op.create_table(
        "devices",
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", CleanText(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.CheckConstraint("state IN ('ok', 'quarantined')", name=op.f("ck_devices_state")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_devices")),
    )
    op.create_index(op.f("ix_devices_host"), "devices", ["host"], unique=False)


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "model_id", name=op.f("pk_models")),
    )


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("payload", Document(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("not_before_time", UtcTime(), nullable=False),
        sa.Column("done_time", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("kind", "key", name=op.f("uq_outbox_kind_key")),
    )
    op.create_index(
        "ix_outbox_pending",
        "outbox",
        ["not_before_time"],
        unique=False,
        postgresql_where=sa.text("done_time IS NULL"),
        sqlite_where=sa.text("done_time IS NULL"),
    )


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("queues", Document(), nullable=False),
        sa.Column("versions", Document(), nullable=False),
        sa.Column("start_time", UtcTime(), nullable=False),
        sa.Column("heartbeat_time", UtcTime(), nullable=False),
        sa.CheckConstraint("state IN ('active', 'draining')", name=op.f("ck_workers_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )


def _create_dataset_versions() -> None:
    op.create_table(
        "dataset_versions",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("classes", Document(), nullable=False),
        sa.Column("counts", Document(), nullable=False),
        sa.Column("manifest_key", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("report", Document(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("delete_time", UtcTime(), nullable=True),
        sa.Column("purge_time", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project", "dataset_id"],
            ["datasets.project", "datasets.dataset_id"],
            name=op.f("fk_dataset_versions_project"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_versions")),
        sa.UniqueConstraint(
            "project", "dataset_id", "version", name=op.f("uq_dataset_versions_project_dataset_id_version")
        ),
        sa.UniqueConstraint("project", "request_id", name=op.f("uq_dataset_versions_project_request_id")),
    )
    op.create_index(
        op.f("ix_dataset_versions_project_create_time_id"),
        "dataset_versions",
        ["project", "create_time", "id"],
        unique=False,
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("preset", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("labels", Document(), nullable=False),
        sa.Column("dataset_version_id", short_id(), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("spec", Document(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("desired", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("uncharged_restarts", sa.Integer(), nullable=False),
        sa.Column("no_progress", sa.Integer(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expire_time", UtcTime(), nullable=True),
        sa.Column("not_before_time", UtcTime(), nullable=True),
        sa.Column("dispatch_time", UtcTime(), nullable=True),
        sa.Column("checkpoint_step", sa.BigInteger(), nullable=False),
        sa.Column("checkpoint_id", short_id(), nullable=True),
        sa.Column("checkpoint_count", sa.Integer(), nullable=False),
        sa.Column("model_version", sa.Integer(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("failure_message", CleanText(), nullable=True),
        sa.Column("failure_log", CleanText(), nullable=True),
        sa.Column("progress_step", sa.BigInteger(), nullable=False),
        sa.Column("progress_total", sa.BigInteger(), nullable=False),
        sa.Column("event_seq", sa.BigInteger(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("start_time", UtcTime(), nullable=True),
        sa.Column("end_time", UtcTime(), nullable=True),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.CheckConstraint("(state = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_jobs_lease")),
        sa.CheckConstraint("(state IN ('queued', 'running')) = (end_time IS NULL)", name=op.f("ck_jobs_end")),
        sa.CheckConstraint("desired IN ('run', 'cancel')", name=op.f("ck_jobs_desired")),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_jobs_state")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_version_id"], ["dataset_versions.id"], name=op.f("fk_jobs_dataset_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("project", "request_id", name=op.f("uq_jobs_project_request_id")),
    )
    op.create_index(
        "ix_jobs_live_dataset",
        "jobs",
        ["dataset_version_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
        sqlite_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(op.f("ix_jobs_project_create_time_id"), "jobs", ["project", "create_time", "id"], unique=False)
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        ["queue", "priority", "create_time"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_jobs_running",
        "jobs",
        ["lease_expire_time"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
        sqlite_where=sa.text("state = 'running'"),
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("job_id", short_id(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_artifacts_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        sa.UniqueConstraint("job_id", "key", name=op.f("uq_artifacts_job_id_key")),
    )
    op.create_index(
        op.f("ix_artifacts_job_id_create_time_id"), "artifacts", ["job_id", "create_time", "id"], unique=False
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", short_id(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("boot_id", sa.Text(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("pid_start", sa.Float(precision=53), nullable=True),
        sa.Column("device", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("failure_message", CleanText(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        sa.Column("start_time", UtcTime(), nullable=False),
        sa.Column("end_time", UtcTime(), nullable=True),
        sa.CheckConstraint("(state = 'running') = (end_time IS NULL)", name=op.f("ck_attempts_end")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id")),
        sa.PrimaryKeyConstraint("job_id", "token", name=op.f("pk_attempts")),
    )
    op.create_index(
        "ix_attempts_open",
        "attempts",
        ["worker_id"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
        sqlite_where=sa.text("state = 'running'"),
    )


def _create_checkpoints() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("job_id", short_id(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("manifest_sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.Float(precision=53), nullable=True),
        sa.Column("files", Document(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.CheckConstraint("state IN ('committed', 'corrupt', 'deleting')", name=op.f("ck_checkpoints_state")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_checkpoints_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("job_id", "step", "token", name=op.f("uq_checkpoints_job_id_step_token")),
    )
    op.create_index(
        "uq_checkpoints_committed",
        "checkpoints",
        ["job_id", "step"],
        unique=True,
        postgresql_where=sa.text("state = 'committed'"),
        sqlite_where=sa.text("state = 'committed'"),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("job_id", short_id(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", Document(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id")),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_events")),
    )


def _create_model_versions() -> None:
    op.create_table(
        "model_versions",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("job_id", short_id(), nullable=False),
        sa.Column("checkpoint_id", short_id(), nullable=True),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("config", Document(), nullable=False),
        sa.Column("metrics", Document(), nullable=False),
        sa.Column("bundle_prefix", sa.Text(), nullable=False),
        sa.Column("bundle_sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_model_versions_job_id")),
        sa.ForeignKeyConstraint(
            ["project", "model_id"], ["models.project", "models.model_id"], name=op.f("fk_model_versions_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("project", "model_id", "version", name=op.f("uq_model_versions_project_model_id_version")),
    )
    op.create_index(
        op.f("ix_model_versions_project_create_time_id"),
        "model_versions",
        ["project", "create_time", "id"],
        unique=False,
    )


def _create_archives() -> None:
    op.create_table(
        "archives",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("model_version_id", short_id(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expire_time", UtcTime(), nullable=True),
        sa.Column("not_before_time", UtcTime(), nullable=True),
        sa.Column("dispatch_time", UtcTime(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("form", sa.Text(), nullable=True),
        sa.Column("parity", Document(), nullable=False),
        sa.Column("message", CleanText(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.CheckConstraint("(state = 'building') = (lease_owner IS NOT NULL)", name=op.f("ck_archives_lease")),
        sa.CheckConstraint("state IN ('queued', 'building', 'ready', 'failed')", name=op.f("ck_archives_state")),
        sa.ForeignKeyConstraint(["model_version_id"], ["model_versions.id"], name=op.f("fk_archives_model_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archives")),
        sa.UniqueConstraint("model_version_id", "target", name=op.f("uq_archives_model_version_id_target")),
    )
    op.create_index(
        "ix_archives_open",
        "archives",
        ["create_time"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'building')"),
        sqlite_where=sa.text("state IN ('queued', 'building')"),
    )


def _create_deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", short_id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("deployment_id", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("model_version_id", short_id(), nullable=False),
        sa.Column("archive_id", short_id(), nullable=False),
        sa.Column("previous_archive_id", short_id(), nullable=True),
        sa.Column("workers", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("create_time", UtcTime(), nullable=False),
        sa.Column("update_time", UtcTime(), nullable=False),
        sa.Column("delete_time", UtcTime(), nullable=True),
        sa.ForeignKeyConstraint(["archive_id"], ["archives.id"], name=op.f("fk_deployments_archive_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_deployments_model_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["previous_archive_id"], ["archives.id"], name=op.f("fk_deployments_previous_archive_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deployments")),
        sa.UniqueConstraint("project", "deployment_id", name=op.f("uq_deployments_project_deployment_id")),
        sa.UniqueConstraint("project", "request_id", name=op.f("uq_deployments_project_request_id")),
    )
    op.create_index(
        op.f("ix_deployments_project_create_time_id"), "deployments", ["project", "create_time", "id"], unique=False
    )


def _create_replicas() -> None:
    op.create_table(
        "replicas",
        sa.Column("agent_id", sa.Text(), nullable=False),
        sa.Column("deployment_uid", short_id(), nullable=False),
        sa.Column("archive_sha256", sa.Text(), nullable=False),
        sa.Column("is_ready", sa.Boolean(), nullable=False),
        sa.Column("is_failed", sa.Boolean(), nullable=False),
        sa.Column("message", CleanText(), nullable=False),
        sa.ForeignKeyConstraint(["agent_id"], ["agents.id"], name=op.f("fk_replicas_agent_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["deployment_uid"], ["deployments.id"], name=op.f("fk_replicas_deployment_uid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("agent_id", "deployment_uid", name=op.f("pk_replicas")),
    )
    op.create_index(op.f("ix_replicas_deployment_uid"), "replicas", ["deployment_uid"], unique=False)
