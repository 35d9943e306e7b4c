"""What only PostgreSQL has: LISTEN and NOTIFY, advisory locks, and the options of its connections.

Imported where the database is one, so that the embedded default starts without its driver.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

import psycopg
import psycopg.conninfo
from sqlalchemy.engine import URL, Engine

from services.db.fault import unavailable

CHANNEL = "trainyard"
SLICE_SECONDS = 0.25
"""How soon `close` ends a wait."""
RECONNECT_SECONDS = 0.5
PAUSE_SECONDS = 0.005
"""Between two notifications: a burst of commits costs a few of them, a lone commit waits for nothing."""
_IDLE = "idle_in_transaction_session_timeout"
TAKE_TIME = f"SET LOCAL {_IDLE} = '60s'"
"""For a transaction in which much else is done between two statements, as in a backup."""
CONNECT_ARGUMENTS = {
    "connect_timeout": 5,
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "trainyard",
    # Transactions here take milliseconds. Whoever holds rows and says nothing for as long as this is frozen, or on a lost
    # machine, and until it is sent away the reaper waits for the row of its job.
    "options": f"-c lock_timeout=10s -c statement_timeout=60s -c {_IDLE}=8s -c timezone=UTC",
}


def conninfo(engine: Engine, url: URL) -> str:
    """Return the connection string for a connection beside the engine's pool."""
    _, arguments = engine.dialect.create_connect_args(url)
    arguments.pop("context", None)  # SQLAlchemy's own adapters, no option of the server
    known = {key: value for key, value in CONNECT_ARGUMENTS.items() if key not in ("options", "connect_timeout")}
    return psycopg.conninfo.make_conninfo("", **{**known, **arguments})


class PostgresChangeFeed:
    """Listens on a connection of its own and builds it again when it breaks."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._closed = threading.Event()
        self._lock = threading.Lock()
        try:
            self._connection: psycopg.Connection[Any] | None = self._connect()
        except psycopg.OperationalError as err:
            password = psycopg.conninfo.conninfo_to_dict(conninfo).get("password")
            raise unavailable(err, password=None if password is None else str(password)) from err

    def wait(self, timeout_seconds: float) -> bool:
        end = time.monotonic() + timeout_seconds
        with self._lock:
            try:
                return self._wait_until(end)
            except psycopg.Error:
                self._disconnect()
        return not self._closed.wait(max(0.0, min(RECONNECT_SECONDS, end - time.monotonic())))

    def close(self) -> None:
        self._closed.set()
        # A wait in progress sees the flag at the end of its slice; the connection is never closed under it.
        with self._lock:
            self._disconnect()

    def _wait_until(self, end: float) -> bool:
        while not self._closed.is_set():
            if self._connection is None:
                self._connection = self._connect()
                return True
            remaining = end - time.monotonic()
            notices = self._connection.notifies(timeout=max(0.0, min(remaining, SLICE_SECONDS)), stop_after=1)
            if list(notices):
                list(self._connection.notifies(timeout=0))
                return True
            if remaining <= 0:
                return False
        return False

    def _connect(self) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5)
        connection.execute(f"LISTEN {CHANNEL}")
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Notifier:
    """Sends one notification for all commits since the last, from a thread of its own.

    A notification lost with the process or the connection costs its listeners one timeout.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._wanted = threading.Condition()
        self._is_wanted = False
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def notify(self) -> None:
        """Ask for a notification; returns at once."""
        with self._wanted:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="database-notifier", daemon=True)
                self._thread.start()
            self._is_wanted = True
            self._wanted.notify()

    def close(self) -> None:
        """Send what is wanted and end."""
        with self._wanted:
            self._is_closed = True
            self._wanted.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=5)

    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while self._next():
            try:
                if connection is None:
                    connection = psycopg.connect(
                        self._conninfo, autocommit=True, connect_timeout=5, options="-c synchronous_commit=off"
                    )
                connection.execute(f"NOTIFY {CHANNEL}")
                time.sleep(PAUSE_SECONDS)
            except psycopg.Error:
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _next(self) -> bool:
        with self._wanted:
            self._wanted.wait_for(lambda: self._is_wanted or self._is_closed)
            is_wanted, self._is_wanted = self._is_wanted, False
            return is_wanted


LEADER_OPTIONS = (
    "-c tcp_keepalives_idle=4 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3 -c tcp_user_timeout=7000"
)
"""The server's own look at the leader's connection: one whose machine is gone keeps its lock for 7 seconds, not for
the hours after which a kernel asks by itself."""


class PostgresLeadership:
    """A session's advisory lock: lost with the connection, and noticed at the next `acquire`."""

    def __init__(self, conninfo: str, name: str) -> None:
        self._conninfo = conninfo
        self._key = int.from_bytes(hashlib.sha256(f"trainyard/{name}".encode()).digest()[:8], "big", signed=True)
        self._connection: psycopg.Connection[Any] | None = None

    def acquire(self) -> bool:
        try:
            if self._connection is not None:
                self._connection.execute("SELECT 1")
                return True
            return self._try_lock()
        except psycopg.Error:
            self.release()
            return False

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _try_lock(self) -> bool:
        connection = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=5, options=LEADER_OPTIONS)
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (self._key,)).fetchone()
        if row is not None and row[0]:
            self._connection = connection
            return True
        connection.close()
        return False
