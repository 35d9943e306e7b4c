"""ModelService: translates and delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator

from trainyard.v1 import model_pb2 as pb
from trainyard.v1 import model_pb2_grpc

from services.core.texts import check_request_id
from services.models import convert
from services.models.download import DownloadManager
from services.models.manager import ModelManager
from services.rpc.middleware import Context
from services.rpc.paging import page_request


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """Model versions and downloads over gRPC."""

    def __init__(self, models: ModelManager, downloads: DownloadManager) -> None:
        self._models = models
        self._downloads = downloads

    async def CreateModelVersion(
        self, request: pb.CreateModelVersionRequest, context: Context
    ) -> pb.CreateModelVersionResponse:
        source = convert.checkpoint_name(request.checkpoint)
        model_id = convert.model_of_request(request, source)
        version = await self._models.create(source, model_id=model_id, request_id=check_request_id(request.request_id))
        return pb.CreateModelVersionResponse(model_version=convert.version_to_proto(version))

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Context) -> pb.GetModelVersionResponse:
        details = await self._models.get(*convert.version_name(request.name))
        return pb.GetModelVersionResponse(model_version=convert.details_to_proto(details))

    async def DeleteModelVersion(
        self, request: pb.DeleteModelVersionRequest, context: Context
    ) -> pb.DeleteModelVersionResponse:
        await self._models.delete(*convert.version_name(request.name))
        return pb.DeleteModelVersionResponse()

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        project, model_id = convert.parent_model(request.parent)
        paging = page_request(request.page_size, request.page_token, "models", project, model_id)
        page = await self._models.list(project, model_id, paging)
        return pb.ListModelVersionsResponse(
            model_versions=[convert.version_to_proto(row) for row in page.items],
            next_page_token=page.next_page_token,
        )

    async def CreateDownloadLink(
        self, request: pb.CreateDownloadLinkRequest, context: Context
    ) -> pb.CreateDownloadLinkResponse:
        source = await self._downloads.find(request.name, request.file)
        return convert.link_to_proto(source, await self._downloads.link(source))

    async def DownloadArtifact(
        self, request: pb.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        source = await self._downloads.find(request.name, request.file)
        yield convert.header_to_proto(source)
        async for chunk in self._downloads.chunks(source, request.name, request.file):
            yield pb.DownloadArtifactResponse(chunk=chunk)
