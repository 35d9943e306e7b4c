"""The command line `trainyard`: a tree of commands, each loaded when it is called."""

from __future__ import annotations

from importlib import import_module

import click

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
}


class _LazyGroup(click.Group):
    """Imports a command's module only when it is needed, so that every command starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        path = _COMMANDS.get(cmd_name)
        if path is None:
            return None
        module, _, attribute = path.partition(":")
        found = getattr(import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="trainyard")
def main() -> None:
    """Train vision models, watch them live, get an endpoint.

    Start a platform on this machine with `trainyard up`; every other command talks to it.
    """
