"""Triggers that make a table append-only: the database itself refuses to change or remove its rows."""

from __future__ import annotations

import sqlalchemy as sa


def creations(table: str, dialect: str) -> list[str]:
    """Return the statements that protect `table`."""
    message = f"{table} is append-only"
    if dialect != "postgresql":
        return [
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
            for verb in ("UPDATE", "DELETE")
        ]
    refuse = f"{table}_refuse"
    body = f"BEGIN RAISE EXCEPTION ''{message}''; END"
    trigger = f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} FOR EACH STATEMENT"
    return [
        f"CREATE OR REPLACE FUNCTION {refuse}() RETURNS trigger LANGUAGE plpgsql AS '{body}'",
        f"{trigger} EXECUTE FUNCTION {refuse}()",
    ]


def removals(table: str, dialect: str) -> list[str]:
    """Return the statements that take the protection away."""
    if dialect != "postgresql":
        return [f"DROP TRIGGER {table}_no_{verb}" for verb in ("update", "delete")]
    return [f"DROP TRIGGER {table}_no_change ON {table}", f"DROP FUNCTION {table}_refuse()"]


def protect(table: sa.Table) -> None:
    """Create the triggers with the table where the tables of the code make a schema."""

    def create(target: sa.Table, connection: sa.Connection, **_options: object) -> None:
        for statement in creations(target.name, connection.dialect.name):
            connection.execute(sa.text(statement))

    sa.event.listen(table, "after_create", create)
