"""Run revisions on the connection of `migrations.upgrade`: inside its transaction, or one a revision where it has none."""

from alembic import context

from services.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
