"""Arguments of several commands, checked before anything is asked."""

from __future__ import annotations

import re

import click

_MODEL_VERSION = re.compile(r"[a-z0-9-]+/(?:\d+|latest)")


def deployment_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Refuse what looks like a model version, where the name of a deployment is wanted.

    Raises:
        click.BadParameter: it has a slash and is no full name.
    """
    del context, parameter
    if "/" not in value or "/deployments/" in value:
        return value
    made = f"; `trainyard deploy {value}` makes one of it" if _MODEL_VERSION.fullmatch(value) else ""
    raise click.BadParameter(f"{value!r} is not the name of a deployment{made}; see `trainyard deployments list`")


def deployment_names(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check several as one by one."""
    return tuple(deployment_name(context, parameter, one) for one in value)
