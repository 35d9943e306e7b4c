"""`trainyard up`, `down` and `status`: the platform of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from rich.console import Console

from services.client.command import CommandFailed, local_command
from services.client.credentials import LOCAL_TOKEN
from services.client.output import Output
from services.client.starting import describe_starting
from services.core.environment import read_settings
from services.up import embedded
from services.up.display import LineDisplay, describe_port, make_display
from services.up.endpoints import Endpoints
from services.up.lock import AlreadyRunning, holder
from services.up.ports import PortTaken

_START_SECONDS = 180.0


@click.command(short_help="Run the whole platform on this machine.")
@click.option("--background", is_flag=True, help="Return once everything is ready; stop it with `trainyard down`.")
@local_command
def up(out: Output, *, background: bool) -> None:
    """Run the whole platform on this machine, in one state directory.

    Starts the API, the controller, a worker and the serving process, restarts what dies, and stops all of it in
    order on Ctrl-C. Settings come from the environment: TRAINYARD_STATE_DIR says where everything is kept.
    """
    try:
        if background:
            _up_in_background(out)
        else:
            _up_here(out)
    except (AlreadyRunning, PortTaken, embedded.StartFailed) as err:
        raise CommandFailed(str(err)) from err


@click.command(short_help="Stop the platform of this machine.")
@local_command
def down(out: Output) -> None:
    """Stop the platform of this machine: the worker saves a checkpoint first, the API goes last."""
    settings = read_settings()
    is_stopped = embedded.stop(
        settings, on_wait=lambda pid: out.say(f"stopping process {pid}; a running trainer saves a checkpoint first")
    )
    if out.is_json:
        out.document({"stopped": is_stopped, "state_dir": str(settings.state_dir)})
    else:
        out.say("stopped" if is_stopped else f"no platform runs in {settings.state_dir}")


@click.command(short_help="Show the platform of this machine.")
@local_command
def status(out: Output) -> None:
    """Show the platform of this machine: its parts, their processes and where they answer."""
    settings = read_settings()
    found = embedded.status(settings)
    if found is None and (pid := holder(settings.state_dir)) is not None:
        raise CommandFailed(f"process {pid} is starting or stopping the platform in {settings.state_dir}; ask again")
    if found is None:
        raise CommandFailed(f"no platform runs in {settings.state_dir}; start one with `trainyard up`")
    _show(out, found, settings.state_dir)


def _up_here(out: Output) -> None:
    console = Console(stderr=out.is_json)
    display = LineDisplay(console) if out.is_json else make_display(console)
    try:
        embedded.run(read_settings(), os.environ, display)
    finally:
        display.close()
        sys.stdout.flush()


def _up_in_background(out: Output) -> None:
    settings = read_settings()
    out.say("starting in the background")
    try:
        found = embedded.start_in_background(settings, os.environ, timeout_seconds=_START_SECONDS)
    except (KeyboardInterrupt, SystemExit):
        out.say("interrupted: what was started is stopped again")
        raise
    _show(out, found, settings.state_dir)
    if moved := describe_port(settings.api_port, found.address):
        out.say(moved)


def _show(out: Output, found: Endpoints, state_dir: Path) -> None:
    if out.is_json:
        out.document(found.model_dump())
        return
    rows = [
        (name, part.state, str(part.pid or ""), str(part.metrics_port or ""), str(part.restarts), part.log)
        for name, part in found.parts.items()
    ]
    out.table(("PART", "STATE", "PID", "METRICS PORT", "RESTARTS", "LOG"), rows, empty="no parts")
    out.say(f"{'ready' if found.is_ready else 'not ready yet'}: the API answers at {found.address} (pid {found.pid})")
    if found.is_ready and (coming := describe_starting(found.address, state_dir.expanduser() / LOCAL_TOKEN)):
        out.say(coming)
