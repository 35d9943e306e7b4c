"""GalleryService: translates and delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator

from trainyard.v1 import gallery_pb2 as pb
from trainyard.v1 import gallery_pb2_grpc

from services.core import names
from services.core.texts import check_request_id
from services.galleries import convert
from services.galleries.enrolment import Enrolment
from services.galleries.manager import GalleryManager
from services.galleries.recognition import Recogniser
from services.rpc.middleware import Context
from services.rpc.paging import page_request


class GalleryServicer(gallery_pb2_grpc.GalleryServiceServicer):
    """Galleries, enrolment and recognition over gRPC."""

    def __init__(self, galleries: GalleryManager, enrolment: Enrolment, recogniser: Recogniser) -> None:
        self._galleries = galleries
        self._enrolment = enrolment
        self._recogniser = recogniser

    async def CreateGallery(self, request: pb.CreateGalleryRequest, context: Context) -> pb.CreateGalleryResponse:
        project = names.parse_project(request.parent)
        counted = await self._galleries.create(
            project,
            names.check_slug(request.gallery_id, field="gallery_id"),
            deployment_id=convert.deployment_id(request.deployment, project),
            keep_images=request.keep_images,
            is_pinned=request.is_pinned,
            request_id=check_request_id(request.request_id),
        )
        return pb.CreateGalleryResponse(gallery=convert.gallery_to_proto(counted))

    async def GetGallery(self, request: pb.GetGalleryRequest, context: Context) -> pb.GetGalleryResponse:
        counted = await self._galleries.get(*convert.gallery_name(request.name))
        return pb.GetGalleryResponse(gallery=convert.gallery_to_proto(counted))

    async def ListGalleries(self, request: pb.ListGalleriesRequest, context: Context) -> pb.ListGalleriesResponse:
        project = names.parse_project(request.parent)
        paging = page_request(request.page_size, request.page_token, "galleries", project)
        page = await self._galleries.list(project, paging)
        return pb.ListGalleriesResponse(
            galleries=[convert.gallery_to_proto(row) for row in page.items], next_page_token=page.next_page_token
        )

    async def UpdateGallery(self, request: pb.UpdateGalleryRequest, context: Context) -> pb.UpdateGalleryResponse:
        is_pinned = request.is_pinned if request.HasField("is_pinned") else None
        counted = await self._galleries.update(*convert.gallery_name(request.name), is_pinned=is_pinned)
        return pb.UpdateGalleryResponse(gallery=convert.gallery_to_proto(counted))

    async def DeleteGallery(self, request: pb.DeleteGalleryRequest, context: Context) -> pb.DeleteGalleryResponse:
        count = await self._galleries.delete(*convert.gallery_name(request.name))
        return pb.DeleteGalleryResponse(identity_count=count)

    async def EnrolIdentity(self, request: pb.EnrolIdentityRequest, context: Context) -> pb.EnrolIdentityResponse:
        project, gallery_id = convert.gallery_name(request.parent, field="parent")
        identity = await self._enrolment.enrol(project, gallery_id, convert.person(request))
        return pb.EnrolIdentityResponse(identity=convert.identity_to_proto(project, gallery_id, identity))

    async def ListIdentities(self, request: pb.ListIdentitiesRequest, context: Context) -> pb.ListIdentitiesResponse:
        project, gallery_id = convert.gallery_name(request.parent, field="parent")
        is_ready = convert.is_ready(request.state)
        paging = page_request(request.page_size, request.page_token, "identities", project, gallery_id, is_ready)
        page = await self._galleries.list_identities(project, gallery_id, paging, is_ready=is_ready)
        return pb.ListIdentitiesResponse(
            identities=[convert.identity_to_proto(project, gallery_id, row) for row in page.items],
            next_page_token=page.next_page_token,
        )

    async def DeleteIdentity(self, request: pb.DeleteIdentityRequest, context: Context) -> pb.DeleteIdentityResponse:
        await self._galleries.delete_identity(*convert.identity_name(request.name))
        return pb.DeleteIdentityResponse()

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyResponse:
        verdict = await self._recogniser.verify(
            *convert.gallery_name(request.name),
            convert.picture(request.image, field="image"),
            convert.other(request),
            threshold=convert.threshold(request),
        )
        return convert.verdict_to_proto(verdict)

    async def Identify(self, request: pb.IdentifyRequest, context: Context) -> pb.IdentifyResponse:
        project, gallery_id = convert.gallery_name(request.name)
        ranking = await self._recogniser.identify(
            project,
            gallery_id,
            convert.picture(request.image, field="image"),
            top_k=convert.top_k(request.top_k),
            threshold=convert.threshold(request),
        )
        return convert.ranking_to_proto(project, gallery_id, ranking)

    async def ReenrolGallery(
        self, request: pb.ReenrolGalleryRequest, context: Context
    ) -> AsyncIterator[pb.ReenrolGalleryResponse]:
        project, gallery_id = convert.gallery_name(request.name)
        deployment_id = convert.deployment_id(request.deployment, project) if request.deployment else ""
        async for progress in self._enrolment.reenrol(project, gallery_id, deployment_id):
            yield convert.progress_to_proto(progress)
