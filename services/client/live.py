"""A job as it runs: a live bar with figures in a terminal, one plain line an event elsewhere."""

from __future__ import annotations

from datetime import UTC
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from trainyard.v1 import job_pb2

from services.client import describe
from services.client.output import human_seconds
from services.client.progress import JobProgress, reduce

_COLOURS = {
    job_pb2.JOB_STATE_QUEUED: "yellow",
    job_pb2.JOB_STATE_RUNNING: "cyan",
    job_pb2.JOB_STATE_CANCELLING: "yellow",
    job_pb2.JOB_STATE_PAUSING: "yellow",
    job_pb2.JOB_STATE_PAUSED: "magenta",
    job_pb2.JOB_STATE_SUCCEEDED: "green",
    job_pb2.JOB_STATE_FAILED: "red",
    job_pb2.JOB_STATE_CANCELLED: "yellow",
}


class Watcher(Protocol):
    """Shows the events of one job."""

    progress: JobProgress

    def see(self, event: job_pb2.JobEvent) -> None: ...

    def reconnecting(self, retry: int) -> None: ...

    def close(self) -> None: ...


class LineWatcher:
    """One line an event."""

    def __init__(self, console: Console) -> None:
        self.progress = JobProgress()
        self._console = console

    def see(self, event: job_pb2.JobEvent) -> None:
        self.progress = reduce(self.progress, event)
        self._say(f"{_clock(event)}  {describe.event(event)}")

    def reconnecting(self, retry: int) -> None:
        if retry == 1:
            self._say("the connection is lost; trying again")

    def close(self) -> None:
        """Nothing is held."""

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveWatcher:
    """A bar that moves, and everything but steps as lines above it."""

    def __init__(self, console: Console, title: str) -> None:
        self.progress = JobProgress()
        self._title = title
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._live.start()
        self._draw()

    def see(self, event: job_pb2.JobEvent) -> None:
        self.progress = reduce(self.progress, event)
        if event.WhichOneof("payload") != "step":
            self._say(f"{_clock(event)}  {describe.event(event)}")
        self._draw()

    def reconnecting(self, retry: int) -> None:
        self._draw(note=f"connection lost, try {retry}")

    def close(self) -> None:
        self._live.stop()

    def _say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def _draw(self, note: str = "") -> None:
        self._live.update(render(self.progress, self._title, note=note))


def make_watcher(console: Console, title: str) -> Watcher:
    return LiveWatcher(console, title) if console.is_terminal else LineWatcher(console)


def render(progress: JobProgress, title: str, *, note: str = "") -> Group:
    """Return the two lines under the events: state and bar, then the figures."""
    bar = Table.grid(padding=(0, 1))
    word = describe.job_state(progress.state)
    doing = describe.phase(progress.phase)
    bar.add_row(
        title,
        Text(f"{word}, {doing}" if doing else word, style=_COLOURS.get(progress.state, "")),
        ProgressBar(total=progress.total_steps or None, completed=progress.step, width=32, pulse=_is_pulsing(progress)),
        f"{progress.step}/{progress.total_steps}" if progress.total_steps else "",
        Text(note, style="red"),
    )
    return Group(bar, Text("  " + "   ".join(figures(progress)), style="dim"))


def figures(progress: JobProgress) -> list[str]:
    """Return the figures worth a glance, those that are known."""
    shown = []
    if progress.loss is not None:
        shown.append(f"loss {progress.loss:.4g}")
    if (metric := progress.headline_metric) is not None:
        shown.append(f"{metric[0]} {metric[1]:.3f}")
    if progress.samples_per_second is not None:
        shown.append(f"{progress.samples_per_second:.1f} samples/s")
    if progress.eta_seconds is not None:
        shown.append(f"{human_seconds(progress.eta_seconds)} left")
    if progress.checkpoint_step is not None:
        shown.append(f"checkpoint at {progress.checkpoint_step}")
    return shown


def _is_pulsing(progress: JobProgress) -> bool:
    return not progress.total_steps and not progress.is_over


def _clock(event: job_pb2.JobEvent) -> str:
    return event.create_time.ToDatetime(tzinfo=UTC).astimezone().strftime("%H:%M:%S")
