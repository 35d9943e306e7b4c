"""`trainyard admin`: what an administrator does on the platform's own database, without a token."""

from __future__ import annotations

import click

from services.client.lazy import LazyGroup

_COMMANDS = {
    "project": "services.client.commands.projects:project",
    "token": "services.client.commands.tokens:token",
    "audit": "services.client.commands.audit:audit",
    "backup": "services.client.commands.backup:backup",
    "restore": "services.client.commands.backup:restore",
    "verify": "services.client.commands.backup:verify",
}


@click.group(cls=LazyGroup, paths=_COMMANDS, short_help="Projects, tokens, the audit log and backups.")
def admin() -> None:
    """Administer a platform where its database is: projects, tokens, quotas, the audit log, backups.

    These commands need no token but the database itself: TRAINYARD_DATABASE_URL, else the one of TRAINYARD_STATE_DIR.
    """
