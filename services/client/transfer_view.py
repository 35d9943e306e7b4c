"""How far a transfer or another long call is: a bar in a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TransferSpeedColumn,
)


@contextmanager
def transfer_bar(console: Console, title: str, *, afterwards: str = "") -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for bytes done and bytes in all; `afterwards` says what happens once all are sent."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def update(done: int, total: int) -> None:
            description = afterwards if afterwards and done >= total else title
            bar.update(task, completed=done, total=total, description=description)

        yield update


@contextmanager
def count_bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for how many things are done and how many there are."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
