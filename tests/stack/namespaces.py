"""Machines of their own as far as the network goes: network namespaces, each with a link to this one."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stack.install import PartMissing, find_program


@dataclass(frozen=True, slots=True)
class Host:
    """One namespace; `gateway` is this machine as seen from there."""

    name: str
    link: str
    gateway: str
    ip: Path

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return what runs a command there."""
        return [str(self.ip), "netns", "exec", self.name, *arguments]

    def unplug(self) -> None:
        """Cut the link: nothing sent from either side arrives any more, and nobody is told."""
        _run(self.ip, "link", "set", self.link, "down")

    def interfaces(self) -> list[str]:
        """Return the names of its network interfaces, without the kernel's suffixes."""
        listed = _run(self.ip, "-n", self.name, "-o", "link")
        return [line.split()[1].rstrip(":").partition("@")[0] for line in listed.splitlines()]


@contextmanager
def network_host() -> Iterator[Host]:
    """Make a namespace whose only way out is a link to this machine, until the context ends.

    Raises:
        PartMissing: this process may not make one.
    """
    if os.geteuid() != 0:
        raise PartMissing("network namespaces need root: run the tests as root, or see them on CI")
    ip = find_program("ip", package="iproute2", places=(Path("/sbin"), Path("/usr/sbin")))
    token = secrets.token_hex(3)
    # A net of its own in 10.128.0.0/9, which containers and clouds seldom hand out.
    net = f"10.{128 + secrets.randbelow(128)}.{secrets.randbelow(256)}"
    host = Host(f"trainyard-{token}", f"ty{token}", f"{net}.1", ip)
    try:
        _run(ip, "netns", "add", host.name)
    except subprocess.CalledProcessError as err:
        raise PartMissing(f"cannot make a network namespace: {err.stderr.strip()}") from err
    try:
        _run(ip, "link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        _run(ip, "addr", "add", f"{host.gateway}/24", "dev", host.link)
        _run(ip, "link", "set", host.link, "up")
        _run(ip, "-n", host.name, "addr", "add", f"{net}.2/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run(ip, "-n", host.name, "link", "set", device, "up")
        yield host
    finally:
        _run(ip, "netns", "del", host.name)


def _run(ip: Path, *arguments: str) -> str:
    done = subprocess.run([str(ip), *arguments], check=True, capture_output=True, text=True)
    return done.stdout
