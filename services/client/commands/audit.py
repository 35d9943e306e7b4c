"""`trainyard admin audit`: who did what."""

from __future__ import annotations

import click

from services.client.administering import administering, local_time
from services.client.command import local_command
from services.client.output import Output


@click.command(short_help="Show who did what.")
@click.option("--project", metavar="ID", help="Only what happened in this project.")
@click.option("--token", "token_id", metavar="ID", help="Only what this token did, by its id.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Lines at most.")
@local_command
def audit(out: Output, *, project: str | None, token_id: str | None, limit: int) -> None:
    """Show the audit log, newest first: every change, every download and every refused call."""
    with administering() as admin:
        found = list(admin.audit_lines(project=project, token_id=token_id, limit=limit))
    if out.is_json:
        names = ("project", "token_id", "peer", "action", "resource", "outcome", "request_id")
        out.document(
            {
                "lines": [
                    {"create_time": one.create_time.isoformat(), **{name: getattr(one, name) for name in names}}
                    for one in found
                ]
            }
        )
        return
    rows = [
        (
            local_time(one.create_time),
            one.token_id or one.peer,
            one.action.rpartition("/")[2],
            one.resource,
            one.outcome,
        )
        for one in found
    ]
    out.table(("TIME", "WHO", "DID", "TO", "OUTCOME"), rows, empty="nothing yet")
