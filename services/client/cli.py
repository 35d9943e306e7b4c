"""The command line `trainyard`: a tree of commands, each loaded when it is called."""

from __future__ import annotations

import click

from services.client.lazy import LazyGroup

_COMMANDS = {
    "up": "services.client.commands.platform:up",
    "down": "services.client.commands.platform:down",
    "status": "services.client.commands.platform:status",
    "demo": "services.client.commands.demo:demo",
    "datasets": "services.client.commands.datasets:datasets",
    "recipes": "services.client.commands.recipes:recipes",
    "jobs": "services.client.commands.jobs:jobs",
    "checkpoints": "services.client.commands.checkpoints:checkpoints",
    "models": "services.client.commands.models:models",
    "deploy": "services.client.commands.deployments:deploy",
    "deployments": "services.client.commands.deployments:deployments",
    "predict": "services.client.commands.predict:predict",
    "galleries": "services.client.commands.galleries:galleries",
    "admin": "services.client.commands.admin:admin",
}


@click.group(
    cls=LazyGroup,
    paths=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="trainyard")
def main() -> None:
    """Train vision models, watch them live, get an endpoint.

    Start a platform on this machine with `trainyard up`; most other commands talk to it.
    """
