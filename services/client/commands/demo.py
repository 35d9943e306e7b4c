"""`trainyard demo`: the whole way from pictures to drawn predictions, on a platform of its own."""

from __future__ import annotations

import signal
from pathlib import Path

import click
from rich.console import Console

from services.client.command import CommandFailed, local_command
from services.client.live import make_watcher
from services.client.output import Output


@click.command(short_help="Train, deploy and query a digit detector.")
@click.option("--out", "folder", type=click.Path(path_type=Path, file_okay=False), default="out", show_default=True)
@click.option(
    "--steps", type=click.IntRange(0), default=0, help="Updates of training; fewer make a quicker, worse detector."
)
@local_command
def demo(out: Output, *, folder: Path, steps: int) -> None:
    """Train a digit detector on a platform of its own, deploy it and ask it about scenes it never saw.

    Writes demo.json with every figure and demo.png with predicted boxes. Needs no network.
    """
    from services.client.demo import DemoFailed, run_demo
    from services.up.embedded import StartFailed

    # As Ctrl-C: what the demo started must not outlive it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=out.is_json)
    try:
        report = run_demo(folder, say=out.say, make_watcher=lambda title: make_watcher(console, title), steps=steps)
    except (DemoFailed, StartFailed) as err:
        raise CommandFailed(str(err)) from err
    if out.is_json:
        out.document(report)
    else:
        out.facts((name, str(value)) for name, value in report.items() if not isinstance(value, dict))
