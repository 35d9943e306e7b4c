"""Blocking work off the event loop: reads in a few threads, writes grouped into shared transactions.

A commit costs more than the statements before it, so writes that wait at the same time commit together.
If one of them fails, all are rolled back and each runs again alone; a function given to `write`
therefore touches nothing but its session.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from services.core.errors import ServerStopping
from services.db import audit
from services.db.audit import AuditLine, Pending
from services.db.database import Database
from services.db.session import Session

T = TypeVar("T")
MAX_GROUP = 64
READ_THREADS = 4
POSTGRES_WRITE_THREADS = 4

AnyFuture = asyncio.Future[Any] | Future[Any]


class Work:
    """The bridge between servicers and the database. Built on the event loop's thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        # SQLite has one writer: a second thread would only queue on its lock.
        threads = POSTGRES_WRITE_THREADS if database.is_postgres else 1
        self._writer = GroupWriter(database, self._deliver, threads=threads)

    async def read(self, function: Callable[[Session], T]) -> T:
        """Run `function` with a reading session."""
        return await self._loop.run_in_executor(self._readers, self._read, function)

    async def read_moment(self, function: Callable[[Session], T]) -> T:
        """Run `function` with a reading session whose statements all see the same moment."""
        return await self._loop.run_in_executor(self._readers, self._read_moment, function)

    async def write(self, function: Callable[[Session], T], *, made: Callable[[T], str] | None = None) -> T:
        """Run `function` in a transaction and return once it is committed, with the audit line of the running call.

        It may run twice, the first time rolled back. A caller that is cancelled does not undo it. `made` names
        the resource that the function made, for the audit log.

        Raises:
            ServerStopping: the server drains.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._writer.submit(function, future, _Audited.of_call(made))
        return await future

    def close(self) -> None:
        """Finish what was begun."""
        self._writer.close()
        self._readers.shutdown(wait=True)

    def _read(self, function: Callable[[Session], T]) -> T:
        with self._database.read() as session:
            return function(session)

    def _read_moment(self, function: Callable[[Session], T]) -> T:
        with self._database.snapshot() as session:
            return function(session)

    def _deliver(self, outcomes: Sequence[Outcome]) -> None:
        # One wake of the loop for the whole group: each costs a system call.
        self._loop.call_soon_threadsafe(settle, outcomes)


@dataclass(slots=True)
class Outcome:
    """One write after its transaction, and who waits for it."""

    future: AnyFuture
    result: Any = None
    error: BaseException | None = None


def settle(outcomes: Sequence[Outcome]) -> None:
    """Tell everybody who still waits; on the thread their futures belong to."""
    for outcome in outcomes:
        if outcome.future.cancelled():
            continue
        if outcome.error is not None:
            outcome.future.set_exception(outcome.error)
        else:
            outcome.future.set_result(outcome.result)


@dataclass(frozen=True, slots=True)
class _Write:
    """One function waiting for its transaction."""

    function: Callable[[Session], Any]
    future: AnyFuture
    audited: _Audited | None = None


@dataclass(frozen=True, slots=True)
class _Audited:
    """The audit line of the call that a write belongs to, and what names its result."""

    pending: Pending
    made: Callable[[Any], str] | None

    @classmethod
    def of_call(cls, made: Callable[[Any], str] | None) -> _Audited | None:
        pending = audit.pending.get()
        return None if pending is None or pending.is_stored else cls(pending, made)

    def line(self, result: Any) -> AuditLine:
        if self.made is not None:
            self.pending.line.resource = self.made(result)
        return self.pending.line


class GroupWriter:
    """Threads that each take what waits, up to MAX_GROUP writes, and commit it as one transaction."""

    def __init__(self, database: Database, deliver: Callable[[Sequence[Outcome]], None], *, threads: int) -> None:
        self._database = database
        self._deliver = deliver
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._run, name=f"write-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[[Session], Any], future: AnyFuture, audited: _Audited | None = None) -> None:
        """Queue `function`; its outcome is delivered after its commit. One cancelled before it began is left out.

        Raises:
            ServerStopping: the writer was closed.
        """
        if self._is_closed:
            raise ServerStopping
        self._waiting.put(_Write(function, future, audited))

    def close(self) -> None:
        """Commit what waits and end the threads."""
        self._is_closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, is_last = self._group(first)
            self._deliver(self._commit([write for write in group if not write.future.cancelled()]))
            if is_last:
                return

    def _group(self, first: _Write) -> tuple[list[_Write], bool]:
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                break
            if write is None:
                return group, True
            group.append(write)
        return group, False

    def _commit(self, group: Sequence[_Write]) -> list[Outcome]:
        if not group:
            return []
        try:
            with self._database.write() as session:
                results = [write.function(session) for write in group]
                audited = [(write.audited, result) for write, result in zip(group, results, strict=True)]
                audit.write(session, [one.line(result) for one, result in audited if one is not None])
        except BaseException as err:  # noqa: BLE001 - belongs to whoever waits for it
            if len(group) == 1:
                return [Outcome(group[0].future, error=err)]
            return [outcome for write in group for outcome in self._commit([write])]
        for write in group:
            if write.audited is not None:
                write.audited.pending.is_stored = True
        return [Outcome(write.future, result) for write, result in zip(group, results, strict=True)]
