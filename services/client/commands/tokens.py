"""`trainyard admin token`: let people and programs in, see who has a token, and take tokens back."""

from __future__ import annotations

import re
from datetime import datetime

import click

from services.client.administering import administering, local_time
from services.client.command import local_command
from services.client.output import Output
from services.core.roles import Role

_NEVER = "never"
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


class _Lifetime(click.ParamType[float | None]):
    """A time such as 30d, 12h or 90m, or `never`; in seconds, or None."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        text = str(value)
        if text == _NEVER:
            return None
        match = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
        if match is None:
            self.fail(f"{text!r} is no time: write 30d, 12h, 90m or `{_NEVER}`", param, ctx)
        return float(int(match[1]) * _SECONDS[match[2]])


@click.group()
def token() -> None:
    """Let people and programs in, see who has a token, and take tokens back."""


@token.command()
@click.option("--project", required=True, metavar="ID", help="The one project the token is for.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="viewer: look and predict; submitter: also train and deploy; admin: also delete data, jobs, models and galleries.",
)
@click.option("--expires", type=_Lifetime(), default="30d", show_default=True, help="Such as 30d or 12h, or `never`.")
@click.option("--note", default="", help="Who or what it is for.")
@local_command
def create(out: Output, *, project: str, role: str, expires: float | None, note: str) -> None:
    """Make a token and show it this once: only its digest is stored."""
    with administering() as admin:
        made = admin.create_token(project, Role(role), note=note, lifetime_seconds=expires)
    if out.is_json:
        expire_time = None if made.token.expire_time is None else made.token.expire_time.isoformat()
        facts = {"id": made.token.id, "project": project, "role": role, "expire_time": expire_time}
        out.document({"token": made.text, **facts})
        return
    click.echo(made.text)
    until = local_time(made.token.expire_time)
    end = f"until {until}" if until else "until it is revoked"
    click.echo(f"token {made.token.id} is a {role} of project {project} {end}; it is not shown again", err=True)


@token.command("list")
@click.option("--project", metavar="ID", help="Only those of this project.")
@local_command
def list_(out: Output, *, project: str | None) -> None:
    """List tokens, newest first; their secrets are nowhere."""
    with administering() as admin:
        found = admin.list_tokens(project)
    if out.is_json:
        names = ("create_time", "expire_time", "revoke_time")
        facts = [{"id": one.id, "project": one.project, "role": one.role.value, "note": one.note} for one in found]
        times = [{name: _iso(getattr(one, name)) for name in names} for one in found]
        out.document({"tokens": [a | b for a, b in zip(facts, times, strict=True)]})
        return
    rows = [
        (
            one.id,
            one.project,
            one.role.value,
            local_time(one.create_time),
            local_time(one.expire_time) or _NEVER,
            local_time(one.revoke_time),
            one.note,
        )
        for one in found
    ]
    out.table(("ID", "PROJECT", "ROLE", "MADE", "EXPIRES", "REVOKED", "NOTE"), rows, empty="no tokens")


@token.command()
@click.argument("token_id", metavar="ID")
@local_command
def revoke(out: Output, *, token_id: str) -> None:
    """Take a token back: calls with it are refused within 5 seconds, and its streams end."""
    with administering() as admin:
        ended = admin.revoke_token(token_id)
    if out.is_json:
        out.document({"id": ended.id, "revoke_time": _iso(ended.revoke_time)})
    out.say(f"token {ended.id} is revoked")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
