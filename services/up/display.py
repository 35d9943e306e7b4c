"""What a person sees while the platform starts, runs and stops: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from services.up.part import Part, PartState
from services.up.plan import Plan

_COLOURS = {
    PartState.STARTING: "yellow",
    PartState.READY: "green",
    PartState.RESTARTING: "red",
    PartState.STOPPING: "yellow",
    PartState.STOPPED: "dim",
}
_TAIL_LINES = 12


class Display(Protocol):
    """Shows states as they change, and remarks between them."""

    def show(self, parts: Sequence[Part]) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LineDisplay:
    """One plain line a change, with its time: for logs and pipes."""

    def __init__(self, console: Console, now: Callable[[], datetime] = _utc_now) -> None:
        self._console = console
        self._now = now
        self._shown: dict[str, tuple[PartState, int | None]] = {}

    def show(self, parts: Sequence[Part]) -> None:
        for part in parts:
            if self._shown.get(part.spec.name) != (part.state, part.pid):
                self._shown[part.spec.name] = (part.state, part.pid)
                pid = f" (pid {part.pid})" if part.pid else ""
                self.say(f"{part.spec.name}: {part.state}{pid}")

    def say(self, text: str) -> None:
        line = f"{self._now():%Y-%m-%dT%H:%M:%SZ}  {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Nothing is held."""


class LiveDisplay:
    """A table that redraws in place, with remarks scrolling above it."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, parts: Sequence[Part]) -> None:
        table = Table.grid(padding=(0, 2))
        for part in parts:
            table.add_row(
                part.spec.name,
                Text(part.state.value, style=_COLOURS[part.state]),
                f"pid {part.pid}" if part.pid else "",
                Text(str(part.spec.log_path), style="dim", overflow="ellipsis", no_wrap=True),
            )
        self._live.update(table, refresh=True)

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()


def make_display(console: Console) -> Display:
    return LiveDisplay(console) if console.is_terminal else LineDisplay(console)


def describe_death(part: Part, code: int, delay_seconds: float) -> str:
    """Say how a part ended, when it comes back, and what it said last."""
    how = f"was killed by {signal.Signals(code - 128).name}" if _is_signal(code) else f"ended with exit code {code}"
    tail = "".join(f"\n    {line}" for line in part.log_tail(_TAIL_LINES))
    return (
        f"{part.spec.name} {how}; starting it again in {delay_seconds:.1f} s. "
        f"The last lines of {part.spec.log_path}:{tail}"
    )


def describe_port(wanted: int, address: str) -> str:
    """Say why the API answers at another port than the usual one, or nothing where it does not."""
    if not wanted or address.rpartition(":")[2] == str(wanted):
        return ""
    return f"port {wanted} is not free: the API answers at {address}; TRAINYARD_API_PORT pins a port of your choice"


def describe_ready(plan: Plan) -> str:
    """Say where the platform answers and what to do next."""
    return (
        f"ready: the API answers at {plan.address}\n"
        "  next: trainyard datasets demo digit-scenes digits\n"
        "        trainyard datasets import digits --name digits\n"
        "        trainyard jobs submit detection/yolo_v1 --dataset digits --preset digits --watch\n"
        "  stop: Ctrl-C here, or `trainyard down`"
    )


def _is_signal(code: int) -> bool:
    return code - 128 in set(signal.Signals)
