"""One platform of a state directory: run it here, start it in the background, stop it, look at it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from services.core.clock import Deadline
from services.core.settings import Settings
from services.identity.bootstrap import LOCAL_FILE
from services.up import background, endpoints
from services.up.background import Background, cause_of, last_lines
from services.up.check import check_settings
from services.up.display import Display, describe_death, describe_port, describe_ready
from services.up.endpoints import Endpoints, PartStatus
from services.up.lock import AlreadyRunning, hold_lock, holder
from services.up.part import Part, trim_log
from services.up.plan import Plan, make_plan
from services.up.state_dir import close, log_dir, make
from services.up.supervisor import Observer, PartRefused, Supervisor

_EXIT_SECONDS = 10.0
_POLL_SECONDS = 0.1


class StartFailed(Exception):
    """The platform did not start; the message holds the cause, or its last log lines."""


def run(settings: Settings, environ: Mapping[str, str], display: Display) -> None:
    """Run the platform until a stop signal, then leave no process, no lock and no endpoints behind.

    Raises:
        AlreadyRunning: another process runs it.
        PortTaken: a port named in the environment is in use.
        SettingsInvalid: a setting cannot be used.
        StartFailed: the metadata database could not be brought to the newest schema, or a part refused a setting.
    """
    settings = with_absolute_state_dir(settings)
    check_settings(settings)
    make(settings.state_dir)
    if remark := close(settings.state_dir):
        display.say(remark)
    with background.ended_by_signals(), hold_lock(settings.state_dir):
        plan = make_plan(settings, environ, endpoints.read_last(settings.state_dir))
        display.say(f"preparing the state directory {settings.state_dir}")
        if moved := describe_port(settings.api_port, plan.address):
            display.say(moved)
        _migrate(plan, settings.state_dir)
        try:
            Supervisor(plan.parts, _observer(plan, settings.state_dir, display)).run()
        except PartRefused as err:
            raise StartFailed(str(err)) from err
        finally:
            endpoints.remove(settings.state_dir)
    display.say("stopped")


def start_in_background(settings: Settings, environ: Mapping[str, str], *, timeout_seconds: float) -> Endpoints:
    """Start the platform as a process of its own and return once it is ready.

    Whatever ends the wait, Ctrl-C and SIGTERM too, ends the platform.

    Raises:
        AlreadyRunning: another process runs it.
        SettingsInvalid: a setting cannot be used.
        StartFailed: it ended, or was not ready in time; then it is stopped again.
    """
    settings = with_absolute_state_dir(settings)
    if (pid := holder(settings.state_dir)) is not None:
        raise AlreadyRunning(settings.state_dir, pid)
    check_settings(settings)
    make(settings.state_dir)
    with background.ended_by_signals():
        started = background.launch(settings.state_dir, environ)
        try:
            return _wait_until_ready(started, settings.state_dir, Deadline(timeout_seconds))
        except BaseException:
            started.end()
            raise


def _wait_until_ready(started: Background, state_dir: Path, deadline: Deadline) -> Endpoints:
    while not deadline.is_over and started.exit_code() is None:
        found = endpoints.read(state_dir)
        if found is not None and found.pid == started.pid and found.is_ready:
            return found
        time.sleep(_POLL_SECONDS)
    raise StartFailed(started.describe_end())


def stop(settings: Settings, *, on_wait: Callable[[int], None]) -> bool:
    """Stop the platform of this state directory gracefully and wait for its end; False where none runs."""
    state_dir = with_absolute_state_dir(settings).state_dir
    pid = holder(state_dir)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    on_wait(pid)
    deadline = Deadline(settings.timings.drain_budget + settings.timings.term_grace + 60.0)
    while holder(state_dir) == pid and not deadline.is_over:
        time.sleep(_POLL_SECONDS)
    if holder(state_dir) == pid:
        # Its guards end every part with it.
        os.kill(pid, signal.SIGKILL)
    _wait_for_exit(pid)
    return True


def _wait_for_exit(pid: int) -> None:
    """The lock is given up a moment before the process is gone; whoever asks next should find nothing."""
    deadline = Deadline(_EXIT_SECONDS)
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and not deadline.is_over:
            time.sleep(_POLL_SECONDS)


def status(settings: Settings) -> Endpoints | None:
    """Return what runs on this state directory, or None."""
    return endpoints.running(with_absolute_state_dir(settings).state_dir)


def with_absolute_state_dir(settings: Settings) -> Settings:
    return settings.model_copy(update={"state_dir": settings.state_dir.expanduser().absolute()})


def _migrate(plan: Plan, state_dir: Path) -> None:
    log_path = log_dir(state_dir) / "migrate.log"
    with log_path.open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "services.up.migrate", "--local-token", str(state_dir / LOCAL_FILE)],
            env=dict(plan.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        )
    if done.returncode != 0:
        said = log_path.read_text(errors="replace")
        raise StartFailed(cause_of(said) or f"the metadata database could not be prepared:\n{last_lines(said)}")


def _observer(plan: Plan, state_dir: Path, display: Display) -> Observer:
    said_ready = False

    def changed(parts: Sequence[Part], is_ready: bool) -> None:
        nonlocal said_ready
        endpoints.write(state_dir, _endpoints(plan, parts, is_ready=is_ready))
        display.show(parts)
        if is_ready and not said_ready:
            said_ready = True
            display.say(describe_ready(plan))

    def died(part: Part, code: int, delay_seconds: float) -> None:
        display.say(describe_death(part, code, delay_seconds))
        # A part that keeps dying fills it; in the foreground there is none.
        trim_log(background.log_path(state_dir))

    return Observer(changed, died)


def _endpoints(plan: Plan, parts: Sequence[Part], *, is_ready: bool) -> Endpoints:
    described = {
        part.spec.name: PartStatus(
            state=part.state.value,
            pid=part.pid,
            metrics_port=part.spec.metrics_port,
            restarts=part.restarts,
            log=str(part.spec.log_path),
        )
        for part in parts
    }
    return Endpoints(
        address=plan.address, pid=os.getpid(), is_ready=is_ready, parts=described, torchserve=plan.torchserve
    )
