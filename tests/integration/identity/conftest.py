"""One server for a module, with two projects: red, which attacks, and blue, which has what red may not touch."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from services.api.compose import Api
from services.core.roles import Role
from services.core.settings import Settings, Timings
from services.db import tables as t
from services.db.database import Database
from services.db.tokens import revoke
from services.storage.local import LocalStore
from tests.integration.identity.world import Estate, furnish, objects, rows
from tests.stack.identity import admit, token_id

PATIENCE = 30.0
# What a check of a token and its record touch.
OWN_TABLES = {"tokens", "audit_lines"}


class WatchedStore(LocalStore):
    """A store of files that notes which objects somebody read or wrote."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.directory = directory
        self.touched: list[str] = []

    def open(self, key: str) -> Any:
        self.touched.append(key)
        return super().open(key)

    def get(self, key: str, *, sha256: str | None = None) -> bytes:
        self.touched.append(key)
        return super().get(key, sha256=sha256)

    def put(self, key: str, *args: Any, **kwargs: Any) -> Any:
        self.touched.append(key)
        return super().put(key, *args, **kwargs)


class Endpoint(ThreadingHTTPServer):
    """A TorchServe that answers every prediction and counts them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answering(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(self.path)
        # Of the project whose deployment was asked; `/predictions/{project}--{deployment}`.
        project = self.path.rpartition("/")[2].partition("--")[0]
        model = {"name": f"{project}-model", "version": 1, "recipe": "face/triplet"}
        predictions = [{"embedding": [1.0, 0.0], "threshold": 0.5}]
        content = json.dumps({"predictions": predictions, "model": model}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@dataclass(slots=True)
class Town:
    """The server, its two projects, a token of each role of each, and everything behind it."""

    database: Database
    store: WatchedStore
    endpoint: Endpoint
    channel: grpc.Channel
    red: Estate
    blue: Estate
    tokens: dict[tuple[str, Role], str]
    revoked: str
    expired: str
    statements: list[str] = field(default_factory=list)

    def token(self, project: str, role: Role = Role.ADMIN) -> str:
        return self.tokens[project, role]

    def holdings(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return all that database and object store hold."""
        return rows(self.database), objects(LocalStore(self.store.directory))

    @property
    def asked_tables(self) -> set[str]:
        """Return the tables that calls since the last `forget` asked for, beside those of identity."""
        names = {table.name for table in t.metadata.sorted_tables} - OWN_TABLES
        words = {word.strip('(),"') for statement in self.statements for word in statement.split()}
        return names & words

    def forget(self) -> None:
        self.statements.clear()
        self.store.touched.clear()
        self.endpoint.asked.clear()


@contextmanager
def api_server(settings: Settings, database: Database, store: LocalStore) -> Iterator[str]:
    """Serve in a thread of this process; yield the address."""
    started = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        api = Api(settings, database, store)
        found.update(port=await api.start("127.0.0.1", 0), loop=asyncio.get_running_loop(), stop=asyncio.Event())
        started.set()
        await found["stop"].wait()
        await api.stop(grace_seconds=0.5)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield f"127.0.0.1:{found['port']}"
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    directory = tmp_path_factory.mktemp("town")
    # What follows deployments looks at the tables by itself, which would be taken for what a call asked.
    settings = Settings(state_dir=directory / "state", timings=Timings(reconcile_interval=3600.0))
    database = Database(settings.resolved_database_url)
    database.migrate()
    store = WatchedStore(directory / "objects")
    endpoint = Endpoint()
    serving = threading.Thread(target=endpoint.serve_forever)
    serving.start()
    tokens = {(project, role): admit(database, project, role) for project in ("red", "blue") for role in Role}
    revoked, expired = admit(database, "blue"), admit(database, "blue", lifetime_seconds=-1.0)
    with database.write() as session:
        revoke(session, token_id(revoked))
    red, blue = (furnish(database, store, directory / project, project, endpoint.url) for project in ("red", "blue"))
    with api_server(settings, database, store) as address, grpc.insecure_channel(address) as channel:
        made = Town(database, store, endpoint, channel, red, blue, tokens, revoked, expired)
        watched = sa.event.listens_for(database._engine, "before_cursor_execute")
        watched(lambda _c, _cursor, statement, *_: made.statements.append(statement))
        yield made
    endpoint.shutdown()
    serving.join()
    endpoint.server_close()
    database.dispose()
