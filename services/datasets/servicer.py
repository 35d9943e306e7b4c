"""DatasetService: translates and delegates; the manager blocks, so it runs in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from trainyard.v1 import dataset_pb2 as pb
from trainyard.v1 import dataset_pb2_grpc

from services.core import names
from services.datasets import convert
from services.datasets.manager import DatasetManager
from services.datasets.upload import Uploads
from services.rpc.middleware import Context
from services.rpc.paging import by_time, page_request

T = TypeVar("T")


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Datasets over gRPC."""

    def __init__(self, datasets: DatasetManager, uploads: Uploads, threads: Executor) -> None:
        self._datasets = datasets
        self._uploads = uploads
        self._threads = threads

    async def CreateDataset(
        self, request_iterator: AsyncIterator[pb.CreateDatasetRequest], context: Context
    ) -> pb.CreateDatasetResponse:
        header = convert.header(await anext(request_iterator, None))
        async with self._uploads.receive(header.expected, convert.chunks(request_iterator)) as received:
            create = partial(
                self._datasets.create,
                header.project,
                request_id=header.request_id,
                dataset_id=header.dataset_id,
                archive_path=received.path,
                format=header.source_format,
                family=header.family,
                display_name=header.display_name,
                archive_sha256=received.sha256,
            )
            # A caller that leaves does not stop an import; its folder must stay until that ends.
            version = await _uninterrupted(self._run(create))
        return pb.CreateDatasetResponse(dataset=convert.dataset_to_proto(version))

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
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


async def _uninterrupted(work: Awaitable[T]) -> T:
    """Await `work` to its end even when cancelled, and only then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
