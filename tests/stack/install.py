"""Programs of others that tests start: found on this machine, or installed from the distribution's packages.

Installing starts no service: tests run servers of their own on free ports and stop them by pid.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[2] / ".cache" / "apt.lock"
# What Debian's packages ask before they start a service; 101 forbids it.
POLICY = Path("/usr/sbin/policy-rc.d")
SYSTEM_PLACES = (Path("/usr/sbin"), Path("/usr/local/bin"), Path("/opt/homebrew/bin"))
_INSTALL_SECONDS = 900.0


class PartMissing(RuntimeError):
    """A program is not here and cannot be installed; the message says what to install."""


def find_program(name: str, *, package: str, places: Sequence[Path] = SYSTEM_PLACES) -> Path:
    """Return a program, after installing its package if need be.

    Raises:
        PartMissing: it is not here and cannot be installed.
    """
    found = _look(name, places)
    if found is None:
        reason = install(package)
        found = _look(name, places)
        if found is None:
            raise PartMissing(f"no `{name}` on this machine: install the package `{package}`{reason}")
    return found


def install(package: str) -> str:
    """Install a package of the distribution where this process may; return why it did not, or nothing."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return ""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _no_service_starts():
            said = _run(apt, "install", package)
            # A machine made from an image often has no list of packages yet, or an old one.
            if said and not (said := _run(apt, "update")):
                said = _run(apt, "install", package)
    return said


@contextmanager
def required_parts() -> Iterator[None]:
    """Skip the test when a part is missing; on CI let it fail.

    For fixtures: what the test itself raises does not pass through here.
    """
    try:
        yield
    except PartMissing as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(err))


def _look(name: str, places: Sequence[Path]) -> Path | None:
    on_path = shutil.which(name)
    known = [*([Path(on_path)] if on_path else []), *(folder / name for folder in places)]
    return next((path for path in known if path.is_file()), None)


def _run(apt: str, verb: str, *packages: str) -> str:
    """Run apt-get and return the end of what it said if it failed."""
    command = [apt, verb, "-y", "-q", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends", *packages]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    return f"; `{' '.join(command[:2])}` failed:\n{(done.stdout + done.stderr)[-2000:]}" if done.returncode else ""


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep packages from starting what they install; a policy that is there already stays as it is."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
