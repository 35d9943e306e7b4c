"""`trainyard admin project`: make projects, list them and set their quotas."""

from __future__ import annotations

from typing import Any, ClassVar

import click

from services.client.administering import administering
from services.client.command import CommandFailed, local_command
from services.client.output import Output
from services.core.units import human_bytes
from services.identity.admin import Usage

_NO_LIMIT = "none"
_LIMITS = ("max_running_jobs", "max_queued_jobs", "max_stored_bytes")


class _Limit(click.ParamType[int | str]):
    """A whole number, with K, M, G or T for bytes, or `none`."""

    name = "LIMIT"
    _UNITS: ClassVar = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        if text == _NO_LIMIT:
            return text
        unit = self._UNITS.get(text[-1:].upper(), 1)
        digits = text if unit == 1 else text[:-1]
        if not digits.isascii() or not digits.isdigit():
            self.fail(f"{text!r} is neither a whole number nor `{_NO_LIMIT}`", param, ctx)
        return int(digits) * unit


@click.group()
def project() -> None:
    """Make projects, list them and set their quotas."""


@project.command()
@click.argument("project_id", metavar="PROJECT")
@local_command
def create(out: Output, *, project_id: str) -> None:
    """Make a project; `trainyard admin token create` then lets somebody in."""
    with administering() as admin:
        made = admin.create_project(project_id)
    if out.is_json:
        out.document({"project": made.id})
    out.say(f"project {made.id} is there")


@project.command("list")
@local_command
def list_(out: Output) -> None:
    """List the projects, what they hold and what they may hold."""
    with administering() as admin:
        found = admin.list_projects()
    if out.is_json:
        out.document({"projects": [_facts(one) for one in found]})
        return
    rows = [
        (
            one.project.id,
            _of(str(one.running_jobs), one.project.max_running_jobs),
            _of(str(one.queued_jobs), one.project.max_queued_jobs),
            human_bytes(one.stored_bytes)
            + ("" if one.project.max_stored_bytes is None else f" of {human_bytes(one.project.max_stored_bytes)}"),
        )
        for one in found
    ]
    out.table(("PROJECT", "RUNNING", "QUEUED", "STORED"), rows, empty="no projects")


@project.command("set-quota")
@click.argument("project_id", metavar="PROJECT")
@click.option("--running-jobs", "max_running_jobs", type=_Limit(), help="Jobs that run at a time, or `none`.")
@click.option("--queued-jobs", "max_queued_jobs", type=_Limit(), help="Jobs that wait, or `none`.")
@click.option("--stored-bytes", "max_stored_bytes", type=_Limit(), help="Bytes kept, such as 500G, or `none`.")
@local_command
def set_quota(out: Output, *, project_id: str, **limits: int | str | None) -> None:
    """Set what a project may hold; what is not named stays."""
    changes = {name: None if value == _NO_LIMIT else int(value) for name, value in limits.items() if value is not None}
    if not changes:
        raise CommandFailed("name at least one of --running-jobs, --queued-jobs and --stored-bytes")
    with administering() as admin:
        now = admin.set_quotas(project_id, changes)
    if out.is_json:
        out.document({"project": now.id} | {name: getattr(now, name) for name in _LIMITS})
    told = ", ".join(f"{_words(name)} {_limit(getattr(now, name))}" for name in _LIMITS)
    out.say(f"project {now.id} may hold: {told}")


def _facts(one: Usage) -> dict[str, Any]:
    held = {"running_jobs": one.running_jobs, "queued_jobs": one.queued_jobs, "stored_bytes": one.stored_bytes}
    return {"project": one.project.id, **held, **{name: getattr(one.project, name) for name in _LIMITS}}


def _of(value: str, limit: int | None) -> str:
    return value if limit is None else f"{value} of {limit}"


def _words(name: str) -> str:
    return name.removeprefix("max_").replace("_", " ")


def _limit(value: int | None) -> str:
    return "without limit" if value is None else str(value)
