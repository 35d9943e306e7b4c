"""Blocking work off the event loop: reads in a few threads, writes grouped into shared transactions.

A commit costs more than the statements before it, so writes that wait at the same time commit together.
If one of them fails, all are rolled back and each runs again alone; a function given to `write`
therefore touches nothing but its session.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from services.core.errors import ServerStopping
from services.db.database import Database

T = TypeVar("T")
MAX_GROUP = 64
READ_THREADS = 4
POSTGRES_WRITE_THREADS = 4


class Work:
    """The bridge between servicers and the database. Built on the event loop's thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        # SQLite has one writer: a second thread would only queue on its lock.
        self._writer = GroupWriter(database, threads=POSTGRES_WRITE_THREADS if database.is_postgres else 1)

    async def read(self, function: Callable[[Session], T]) -> T:
        """Run `function` with a reading session."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, function)

    async def write(self, function: Callable[[Session], T]) -> T:
        """Run `function` in a transaction and return once it is committed.

        It may run twice, the first time rolled back. A caller that is cancelled does not undo it.
        """
        return await asyncio.wrap_future(self._writer.submit(function))

    def close(self) -> None:
        """Finish what was begun."""
        self._writer.close()
        self._readers.shutdown(wait=True)

    def _read(self, function: Callable[[Session], T]) -> T:
        with self._database.read() as session:
            return function(session)


class _Write:
    """One function waiting for its transaction."""

    __slots__ = ("function", "future")

    def __init__(self, function: Callable[[Session], Any]) -> None:
        self.function = function
        self.future: Future[Any] = Future()


class GroupWriter:
    """Threads that each take what waits, up to MAX_GROUP writes, and commit it as one transaction."""

    def __init__(self, database: Database, *, threads: int) -> None:
        self._database = database
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._run, name=f"write-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[[Session], T]) -> Future[T]:
        """Queue `function`; the future ends after its commit.

        Raises:
            ServerStopping: the writer was closed.
        """
        if self._is_closed:
            raise ServerStopping
        write = _Write(function)
        self._waiting.put(write)
        return write.future

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
            self._commit([write for write in group if write.future.set_running_or_notify_cancel()])
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

    def _commit(self, group: list[_Write]) -> None:
        if not group:
            return
        try:
            with self._database.write() as session:
                results = [write.function(session) for write in group]
        except BaseException as err:  # noqa: BLE001 - belongs to whoever waits for the future
            if len(group) == 1:
                group[0].future.set_exception(err)
                return
            for write in group:
                self._commit([write])
            return
        for write, result in zip(group, results, strict=True):
            write.future.set_result(result)
