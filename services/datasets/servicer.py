"""DatasetService: translates and delegates; the manager blocks, so it runs in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from trainyard.v1 import dataset_pb2 as pb
from trainyard.v1 import dataset_pb2_grpc

from services.core import names
from services.datasets import convert
from services.datasets.manager import DatasetManager
from services.datasets.upload import Uploads, next_message
from services.db.datasets import DatasetVersion
from services.rpc.middleware import Context
from services.rpc.paging import by_time, page_request

T = TypeVar("T")


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Datasets over gRPC."""

    def __init__(self, datasets: DatasetManager, uploads: Uploads, *, threads: Executor, imports: Executor) -> None:
        """`imports` runs what takes minutes, `threads` all else."""
        self._datasets = datasets
        self._uploads = uploads
        self._threads = threads
        self._imports = imports

    async def CreateDataset(
        self, request_iterator: AsyncIterator[pb.CreateDatasetRequest], context: Context
    ) -> pb.CreateDatasetResponse:
        header = convert.header(await next_message(request_iterator))
        create = self._fetch if header.source_url else self._receive
        return pb.CreateDatasetResponse(dataset=convert.dataset_to_proto(await create(header, request_iterator)))

    async def _receive(
        self, header: convert.Header, requests: AsyncIterator[pb.CreateDatasetRequest]
    ) -> DatasetVersion:
        await self._run(partial(self._datasets.check_room, header.project, header.fields["request_id"]))
        async with self._uploads.receive(header.expected, convert.chunks(requests)) as received:
            create = partial(
                self._datasets.create,
                header.project,
                archive_path=received.path,
                source_sha256=received.sha256,
                **header.fields,
            )
            # A caller that leaves does not stop an import; its folder must stay until that ends.
            return await self._uninterrupted(create)

    async def _fetch(self, header: convert.Header, requests: AsyncIterator[pb.CreateDatasetRequest]) -> DatasetVersion:
        convert.check_end(await next_message(requests))
        abandoned = threading.Event()
        create = partial(
            self._datasets.create_from_url,
            header.project,
            url=header.source_url,
            sha256=header.expected.sha256,
            abandoned=abandoned,
            **header.fields,
        )
        return await self._uninterrupted(create, on_cancel=abandoned.set)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        project, dataset_id = convert.dataset_name(request.name)
        version = await self._run(partial(self._datasets.get, project, dataset_id, request.version or None))
        return pb.GetDatasetResponse(dataset=convert.dataset_to_proto(version))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        project = names.parse_project(request.parent)
        paging = page_request(request.page_size, request.page_token, "datasets", project, request.family)
        rows = await self._run(
            partial(
                self._datasets.list,
                project,
                page_size=paging.size + 1,
                after=paging.time_key,
                family=request.family or None,
            )
        )
        page = paging.cut(rows, by_time)
        return pb.ListDatasetsResponse(
            datasets=[convert.dataset_to_proto(row) for row in page.items], next_page_token=page.next_page_token
        )

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> pb.DeleteDatasetResponse:
        await self._run(partial(self._datasets.delete, *convert.dataset_name(request.name)))
        return pb.DeleteDatasetResponse()

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _in_context(function))

    async def _uninterrupted(self, function: Callable[[], T], on_cancel: Callable[[], None] = lambda: None) -> T:
        """Await `function` to its end even when cancelled, and only then be cancelled."""
        task = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._imports, _in_context(function)))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            on_cancel()
            await asyncio.wait([task])
            raise


def _in_context(function: Callable[[], T]) -> Callable[[], T]:
    """Return `function` as seen from this call: its request id for logs, its line for the audit log."""
    return partial(copy_context().run, function)
