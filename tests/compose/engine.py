"""A Docker engine on this machine: the one that answers, or one started here and ended by its pid."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {"dockerd": "docker.io", "debootstrap": "debootstrap"}
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0


class EngineMissing(RuntimeError):
    """No Docker engine answers here and none can be started; start one, or run this as root on Debian."""


@contextmanager
def engine(log_path: Path) -> Iterator[None]:
    """Have an engine for the time of the block; one that was there before stays."""
    if answers():
        yield
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise EngineMissing(EngineMissing.__doc__)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(process, log_path)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def install_missing() -> None:
    """Install the engine, Compose and debootstrap where root can and they are not there."""
    missing = sorted(package for program, package in PACKAGES.items() if shutil.which(program) is None)
    if not has_compose():
        missing.append("docker-compose")
    if not missing or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", "iptables", *missing]):
        subprocess.run(["apt-get", *command], check=True, stdout=subprocess.DEVNULL, env=environ)


def has_compose() -> bool:
    return has_plugin() or shutil.which("docker-compose") is not None


def has_plugin() -> bool:
    """Return whether the client has Compose v2."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _wait(process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log_path.read_text(errors="replace")[-2000:]
            raise EngineMissing(f"dockerd did not start; the end of {log_path}:\n{tail}")
        time.sleep(0.2)
