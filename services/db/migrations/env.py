"""Run revisions on the connection and inside the transaction of `migrations.upgrade`."""

from alembic import context

from services.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
