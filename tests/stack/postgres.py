"""A real PostgreSQL server for tests: its own data directory, a free port, fsync on, gone afterwards.

PostgreSQL refuses to run as root; there, it runs as the user `postgres` or `nobody` from a directory
that user owns.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psycopg

from tests.stack.bound import bound
from tests.stack.install import PartMissing, install
from tests.stack.ports import free_port

START_SECONDS = 60.0
PLACES = (Path("/usr/local/bin"), Path("/usr/local/pgsql/bin"), Path("/opt/homebrew/bin"))
MEMORY = Path("/dev/shm")


class PostgresMissing(PartMissing):
    """No PostgreSQL server on this machine; install the package `postgresql` (initdb and postgres)."""


@dataclass
class PostgresServer:
    """One server process; `stop` and `start` keep its data and its port."""

    data: Path
    port: int
    binaries: Path
    identity: tuple[int, int] | None
    """User and group, where they are not those of the tests."""
    _log: IO[bytes]
    addresses: Sequence[str] = ("127.0.0.1",)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg://trainyard@127.0.0.1:{self.port}/{database}"

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=trainyard dbname=postgres connect_timeout=2"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        listen = ",".join(self.addresses)
        command = [
            str(self.binaries / "postgres"),
            "-D",
            str(self.data),
            "-p",
            str(self.port),
            "-h",
            listen,
            "-k",
            "",
            "-c",
            "fsync=on",
        ]
        self._process = subprocess.Popen(
            bound(command, signal.SIGINT, identity=self.identity),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=self.data,
        )
        self._wait_until_ready()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT disconnects everyone, SIGQUIT is a crash that needs recovery."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def execute(self, statement: str) -> None:
        """Run one statement outside a transaction, such as CREATE DATABASE."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement)

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"postgres ended with {self._process.returncode}; see {self._log.name}")
            try:
                psycopg.connect(self.conninfo).close()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return


@contextmanager
def postgres_process(
    directory: Path, *, in_memory: bool = False, addresses: Sequence[str] = ()
) -> Iterator[PostgresServer]:
    """Run a server whose data lives in `directory`, or in a temporary directory of the user root runs it as.

    `in_memory` prefers a file system in memory, where creating a database for each test is quick; the
    server syncs as ever, and its data survives a crash of the process. It listens on `addresses` too and trusts
    their networks of 256.
    """
    binaries = find_binaries()
    identity, home, clean = _place(directory, MEMORY if in_memory and os.access(MEMORY, os.W_OK) else None)
    data = home / "data"
    command = [str(binaries / "initdb"), "-D", str(data), "-U", "trainyard", "--auth=trust", "-E", "UTF8", "--locale=C"]
    try:
        subprocess.run(bound(command, identity=identity), check=True, stdout=subprocess.DEVNULL, cwd=home)
        with (data / "pg_hba.conf").open("a") as hba:
            hba.writelines(f"host all all {address}/24 trust\n" for address in addresses)
        with (home / "postgres.log").open("wb") as log:
            server = PostgresServer(data, free_port(), binaries, identity, log, ("127.0.0.1", *addresses))
            server.start()
            try:
                yield server
            finally:
                server.stop()
    finally:
        clean()


@contextmanager
def postgres_server(directory: Path) -> Iterator[str]:
    """Run a server and yield the SQLAlchemy URL of its empty database."""
    with postgres_process(directory) as server:
        yield server.url


def find_binaries() -> Path:
    """Return the folder of initdb and postgres; root installs the distribution's package where there is none.

    Raises:
        PostgresMissing: there is none and it cannot be installed.
    """
    found = _find()
    if found is None:
        reason = install("postgresql")
        found = _find()
        if found is None:
            raise PostgresMissing(f"{PostgresMissing.__doc__}{reason}")
    return found


def _find() -> Path | None:
    packaged: list[Path] = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    on_path = shutil.which("initdb")
    places: list[Path] = [*packaged, *PLACES, *([Path(on_path).parent] if on_path else [])]
    for folder in places:
        if all((folder / name).exists() for name in ("initdb", "postgres")):
            return folder
    return None


def _place(directory: Path, parent: Path | None) -> tuple[tuple[int, int] | None, Path, Callable[[], None]]:
    is_root = os.geteuid() == 0
    if not is_root and parent is None:
        home = directory / "postgres"
        home.mkdir(parents=True, exist_ok=True)
        return None, home, lambda: None
    home = Path(tempfile.mkdtemp(prefix="trainyard-postgres-", dir=parent))
    identity = None
    if is_root:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(home, user.pw_uid, user.pw_gid)
        identity = (user.pw_uid, user.pw_gid)
    return identity, home, lambda: shutil.rmtree(home, ignore_errors=True)
