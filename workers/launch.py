"""Trains in several processes: torch's elastic launcher, as a child of the warm parent.

The launcher forks one trainer a process, so torch stays imported, and all of them stay in its group and die with it.
The processes meet at files of the attempt, not at a port. When one fails the others are ended and the launcher ends
as it did, so the supervisor judges it like a trainer of one process; a restart is the next attempt's business.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from workers import host, process
from workers.child import DUMP_SIGNAL, STOP_SIGNALS, StopFlag, failure_fields
from workers.engine import run
from workers.engine.crew import PeerLost, joined
from workers.engine.frames import FrameKind, FrameWriter
from workers.failure import diagnose, last_words, write_log

WATCH_SECONDS = 0.1
"""How often the launcher looks whether a process ended."""
ABANDONED_SECONDS = 60.0
"""How long a process that lost another waits to be ended by the launcher."""
_NETWORK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


class Roll(StopFlag):
    """Memory that launcher and processes share: the request to stop, and who they are."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._layout = struct.Struct(f"={1 + size}q")
        self._memory = mmap.mmap(-1, self._layout.size)

    def is_set(self) -> bool:
        return bool(self._memory[0])

    def set(self) -> None:
        self._memory[0] = 1

    def sign(self, rank: int) -> None:
        """Enter this process."""
        struct.pack_into("=q", self._memory, 8 * (1 + rank), os.getpid())

    def pids(self) -> list[int]:
        return [pid for pid in self._layout.unpack(self._memory[:])[1:] if pid]

    def _request(self, *_: object) -> None:
        self.set()


@dataclass(frozen=True, slots=True)
class _Order:
    plan: Mapping[str, Any]
    frames: FrameWriter
    roll: Roll
    directory: Path
    launcher_pid: int

    @property
    def devices(self) -> list[str]:
        return list(self.plan["devices"])

    def failure_path(self, rank: int) -> Path:
        return self.directory / f"failure-{rank}.json"


def launch(plan: Mapping[str, Any], frames: FrameWriter, stop: StopFlag) -> None:
    """Train a plan with several devices to its end, to a request to stop, or until the first process fails.

    Returns when all processes ended well; else ends this process as the one that failed did, after its failure frame.
    """
    order = _Order(plan, frames, Roll(len(plan["devices"])), Path.cwd(), os.getpid())
    for number in STOP_SIGNALS:
        order.roll.listen(number)
    if stop.is_set():
        order.roll.set()
    _pass_on_dumps(order.roll)
    # Whatever torch leaves behind goes with the attempt's directory; a store of its own would listen on a port.
    tempfile.tempdir = str(order.directory)
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    # torch counts devices here; were CUDA itself asked, no fork of this process could use it.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    try:
        launch_agent(_config(order), _take_part, [order])
    except ChildFailedError as err:
        _end_like(order, min(err.failures.values(), key=lambda failure: failure.timestamp))


def _config(order: _Order) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=len(order.devices),
        run_id=order.directory.name,
        rdzv_backend="c10d",
        rdzv_endpoint=str(order.directory / "rendezvous"),
        rdzv_configs={"store_type": "file"},
        max_restarts=0,
        monitor_interval=WATCH_SECONDS,
        start_method="fork",
        local_addr="127.0.0.1",
        logs_specs=DefaultLogsSpecs(log_dir=str(order.directory / "elastic")),
        # Stops are ours: the processes agree on a step and save. torch's handler would end them.
        signals_to_handle="SIGHUP",
    )


def _pass_on_dumps(roll: Roll) -> None:
    """Have a request for stacks reach the trainers: theirs are what a stall is about."""

    def pass_on(number: int, _: FrameType | None) -> None:
        for pid in roll.pids():
            if host.process_start(pid) is not None:
                os.kill(pid, number)

    faulthandler.unregister(DUMP_SIGNAL)
    signal.signal(DUMP_SIGNAL, pass_on)
    faulthandler.register(DUMP_SIGNAL, file=sys.stderr, all_threads=True, chain=True)


def _take_part(order: _Order) -> None:
    """Be one of the processes; entered after the fork."""
    rank, size = int(os.environ["RANK"]), len(order.devices)
    process.die_with_parent(order.launcher_pid)
    order.roll.sign(rank)
    _listen(order.roll)
    try:
        _train(order, rank, size)
    except PeerLost:
        write_log(traceback.format_exc())
        _wait_to_be_ended()
        _fail(order, rank)
    except BaseException as err:  # noqa: BLE001 - the process ends here, and the launcher must learn why
        write_log(last_words(err, diagnose(err)))
        _fail(order, rank)


def _train(order: _Order, rank: int, size: int) -> None:
    plan = {name: value for name, value in order.plan.items() if name != "devices"}
    plan["device"] = order.devices[rank]
    plan["threads"] = max(1, int(plan["threads"]) // size)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(plan["threads"])
    for name, value in _NETWORK.items():
        os.environ.setdefault(name, value)
    frames = order.frames if rank == 0 else FrameWriter(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    device = torch.device(plan["device"])
    has_own_device = len(set(order.devices)) == size
    if device.type == "cuda":
        torch.cuda.set_device(device)
    meeting = order.directory / "crew"
    with joined(rank, size, meeting=meeting, device=device, has_own_device=has_own_device) as crew:
        run.train(plan, frames, order.roll, crew=crew)


def _listen(roll: Roll) -> None:
    def stop(*_: object) -> None:
        # The launcher asks for stops through the roll. A signal is from a service manager that stops everybody, or
        # from the launcher because another process is gone: then there is nothing to save.
        if any(host.process_start(pid) is None for pid in roll.pids()):
            os._exit(1)
        roll.set()

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    faulthandler.unregister(DUMP_SIGNAL)
    signal.signal(DUMP_SIGNAL, signal.SIG_DFL)
    faulthandler.register(DUMP_SIGNAL, file=sys.stderr, all_threads=True)


def _wait_to_be_ended() -> None:
    """Let the launcher see first who ended by itself."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end = time.monotonic() + ABANDONED_SECONDS
    while time.monotonic() < end:
        time.sleep(WATCH_SECONDS)


def _fail(order: _Order, rank: int) -> NoReturn:
    """Leave the reason for the launcher, and end; called while the exception is handled."""
    err = sys.exc_info()[1]
    assert err is not None
    fields = failure_fields(diagnose(err)) | {"device": order.devices[rank]}
    part = order.failure_path(rank).with_suffix(".part")
    part.write_text(json.dumps({"at": time.monotonic(), "fields": fields}))
    part.rename(order.failure_path(rank))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _end_like(order: _Order, failure: ProcessFailure) -> NoReturn:
    """Tell what the first process that explained itself said, and end as the first that ended did."""
    sys.stderr.write(f"process {failure.local_rank} of {len(order.devices)} ended first: {failure.exitcode}\n")
    sys.stderr.flush()
    paths = [path for rank in range(len(order.devices)) if (path := order.failure_path(rank)).exists()]
    told = sorted((json.loads(path.read_text()) for path in paths), key=lambda one: float(one["at"]))
    if failure.exitcode < 0:
        # The supervisor knows what signals mean: what the kernel kills for memory is not a crash.
        faulthandler.disable()
        number = signal.Signals(-failure.exitcode)
        if number is not signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if told:
        order.frames.write(FrameKind.FAILURE, **told[0]["fields"])
    os._exit(failure.exitcode or 1)
