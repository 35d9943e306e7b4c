"""The fastest honest peer of CreateJob: grpc.aio, one INSERT and COMMIT a call, nothing else."""

from __future__ import annotations

import asyncio
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import sqlalchemy as sa

METHOD = "/bare.Bare/Create"
TABLE = sa.Table(
    "rows",
    sa.MetaData(),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)


def make_engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection, _record) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    TABLE.metadata.create_all(engine)
    return engine


def insert(engine: sa.Engine, body: bytes) -> bytes:
    row_id = uuid.uuid4().hex
    with engine.begin() as connection:
        connection.execute(TABLE.insert(), {"id": row_id, "body": body})
    return row_id.encode()


async def serve(path: Path) -> None:
    engine = make_engine(path)
    # SQLite has one writer: more threads would only queue on its lock.
    executor = ThreadPoolExecutor(1)

    async def create(request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(executor, insert, engine, request)

    handler = grpc.unary_unary_rpc_method_handler(create)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare.Bare", {"Create": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
