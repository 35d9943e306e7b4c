"""A kombu transport of plain files, for one machine without a broker server.

Kombu's own filesystem transport writes messages in place, so a reader can see half of one and end its worker.
Here a file gets its final name by one rename, a message belongs to the reader that unlinks it, and a table of
bindings is replaced whole. A file that vanished meanwhile went to another reader.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem, virtual
from kombu.utils.json import dumps, loads

from services.core.folder_watch import FolderWatch

LOOK_SECONDS = 0.1
"""Between two looks: a message can also wait for a slot, of which no file tells."""

Binding = filesystem.exchange_queue_t


class SlotsQoS(virtual.QoS):
    """Lets a worker take no message that it cannot run at once.

    Celery acknowledges before a task runs, so by unacknowledged messages alone a busy worker would take as many
    again, which wait for it while others are free, and are lost with it. For Redis Celery has a setting.
    """

    def can_consume(self) -> bool:
        from celery.worker import state

        has_room = not self.prefetch_count or len(state.reserved_requests) < self.prefetch_count
        return has_room and bool(super().can_consume())


class FilesChannel(filesystem.Channel):
    """One connection's view of the folder: queues as names of files, in the order they were sent."""

    QoS = SlotsQoS

    @property
    def _folder(self) -> Path:
        return Path(self.data_folder_in)

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:  # type: ignore[override]
        # Wall time orders senders of several boots; the unique part makes the name one sender's own.
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
        _replace(self._folder / f"{name}.{queue}.msg", dumps(payload).encode())

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for name in sorted(self._names(queue)):
            file = self._folder / name
            try:
                message = file.read_bytes()
                file.unlink()
            except FileNotFoundError:
                continue
            return loads(message.decode())
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._names(queue))

    def _purge(self, queue: str) -> int:
        names = self._names(queue)
        for name in names:
            with suppress(FileNotFoundError):
                (self._folder / name).unlink()
        return len(names)

    def _names(self, queue: str) -> list[str]:
        suffix = f"{queue}.msg"
        return [name for name in os.listdir(self._folder) if name.partition(".")[2] == suffix]

    def get_table(self, exchange: str) -> list[Any]:
        try:
            rows = loads(self._table_file(exchange).read_text())
        except FileNotFoundError:
            return []
        return [Binding(*row) for row in rows]

    def _queue_bind(self, exchange: str, routing_key: str | None, pattern: str | None, queue: str | None) -> None:
        binding = Binding(routing_key or "", pattern or "", queue or "")
        self._change_table(exchange, lambda table: table if binding in table else [binding, *table])

    def _delete(
        self, queue: str, exchange: str, routing_key: str | None, pattern: str | None, *_: Any, **__: Any
    ) -> None:
        self._purge(queue)
        binding = Binding(routing_key or "", pattern or "", queue or "")
        self._change_table(exchange, lambda table: [row for row in table if row != binding])

    def _table_file(self, exchange: str) -> Path:
        # The base class refuses names that would lead out of the folder.
        file: Path = self._exchange_file(exchange)  # type: ignore[attr-defined]
        return file

    def _change_table(self, exchange: str, change: Callable[[list[Any]], list[Any]]) -> None:
        with _locked(self.control_folder / "lock"):
            before = self.get_table(exchange)
            after = change(before)
            if after != before:
                _replace(self._table_file(exchange), dumps(after).encode())


class FilesTransport(filesystem.Transport):
    """Looks into the folder when a message was moved there."""

    Channel = FilesChannel
    driver_type = "files"
    driver_name = "files"

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        # The base class shares what is declared among all folders of a process, so a second one gets no bindings.
        self.state = virtual.BrokerState()
        self._watch: FolderWatch | None = None

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:  # type: ignore[override]
        """Deliver one message.

        Raises:
            TimeoutError: none came in time.
        """
        end = time.monotonic() + timeout if timeout is not None else math.inf
        # Before the first look, so that a message sent between the look and the wait ends the wait.
        watch = self._watch = self._watch or self._watch_folder()
        assert self.cycle is not None
        while True:
            try:
                self.cycle.get(self._deliver, timeout=timeout)
            except Empty:
                remaining = end - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError from None
                watch.wait(min(remaining, LOOK_SECONDS))
            else:
                return

    def close_connection(self, connection: Any) -> None:
        super().close_connection(connection)
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _watch_folder(self) -> FolderWatch:
        assert self.client is not None
        assert self.client.transport_options is not None
        folder = Path(self.client.transport_options["data_folder_in"])
        return FolderWatch(folder, lambda name: name.endswith(".msg"))


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    part.write_bytes(content)
    part.rename(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
