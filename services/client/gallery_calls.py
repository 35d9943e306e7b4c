"""The part of the SDK that knows galleries of faces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from trainyard.v1 import gallery_pb2 as pb
from trainyard.v1 import gallery_pb2_grpc

from services.client.channel import Caller
from services.client.names import Namer
from services.core.ids import new_id

PAGE_SIZE = 200
PREDICT_SECONDS = 150.0
"""How long a call may take that a model answers."""

Picture = bytes | Path | str | pb.FaceImage
"""Encoded bytes, a file of them, or either with landmarks as the wire has it."""


class GalleryCalls:
    """Methods of `Trainyard` for the rpcs of GalleryService."""

    name: Namer
    _caller: Caller
    _galleries: gallery_pb2_grpc.GalleryServiceStub

    def create_gallery(
        self,
        gallery_id: str,
        *,
        deployment: str,
        keep_images: bool = False,
        is_pinned: bool = False,
        request_id: str = "",
    ) -> pb.Gallery:
        """Make an empty gallery of the model version that a deployment is to serve.

        Kept images let another version embed everybody again, which happens by itself unless the gallery is pinned;
        without them people have to show up again.
        """
        request = pb.CreateGalleryRequest(
            parent=self.name.parent,
            gallery_id=gallery_id,
            deployment=self.name.deployment(deployment),
            keep_images=keep_images,
            is_pinned=is_pinned,
            request_id=request_id or new_id(),
        )
        return self._caller.unary(self._galleries.CreateGallery, request).gallery

    def get_gallery(self, gallery: str) -> pb.Gallery:
        request = pb.GetGalleryRequest(name=self.name.gallery(gallery))
        return self._caller.unary(self._galleries.GetGallery, request).gallery

    def list_galleries(self) -> Iterator[pb.Gallery]:
        """Yield the galleries of the project, newest first."""
        request = pb.ListGalleriesRequest(parent=self.name.parent, page_size=PAGE_SIZE)
        return self._caller.pages(self._galleries.ListGalleries, request, lambda reply: reply.galleries)

    def pin_gallery(self, gallery: str, *, is_pinned: bool = True) -> pb.Gallery:
        """Keep a gallery with its model version, or let it follow its deployment."""
        request = pb.UpdateGalleryRequest(name=self.name.gallery(gallery), is_pinned=is_pinned)
        return self._caller.unary(self._galleries.UpdateGallery, request).gallery

    def delete_gallery(self, gallery: str) -> int:
        """Delete a gallery with all its identities, and return how many they were."""
        request = pb.DeleteGalleryRequest(name=self.name.gallery(gallery))
        reply = self._caller.unary(self._galleries.DeleteGallery, request, is_repeatable=False)
        return reply.identity_count

    def enrol(
        self,
        gallery: str,
        identity_id: str,
        images: Sequence[Picture],
        *,
        display_name: str = "",
        replace_existing: bool = False,
        request_id: str = "",
    ) -> pb.Identity:
        """Store a person by pictures of their face."""
        request = pb.EnrolIdentityRequest(
            parent=self.name.gallery(gallery),
            identity_id=identity_id,
            display_name=display_name,
            images=[_picture(image) for image in images],
            replace_existing=replace_existing,
            request_id=request_id or new_id(),
        )
        reply = self._caller.unary(self._galleries.EnrolIdentity, request, timeout_seconds=PREDICT_SECONDS)
        return reply.identity

    def list_identities(
        self, gallery: str, *, state: pb.IdentityState = pb.IDENTITY_STATE_UNSPECIFIED
    ) -> Iterator[pb.Identity]:
        """Yield the identities of a gallery, newest first; all, or those of one state."""
        request = pb.ListIdentitiesRequest(parent=self.name.gallery(gallery), state=state, page_size=PAGE_SIZE)
        return self._caller.pages(self._galleries.ListIdentities, request, lambda reply: reply.identities)

    def delete_identity(self, identity: str) -> None:
        """Delete a person, named in full or as `gallery/identity`, with everything known of them."""
        request = pb.DeleteIdentityRequest(name=self.name.identity(identity))
        self._caller.unary(self._galleries.DeleteIdentity, request, is_repeatable=False)

    def verify(
        self,
        gallery: str,
        image: Picture,
        *,
        other_image: Picture | None = None,
        identity_id: str = "",
        threshold: float | None = None,
    ) -> pb.VerifyResponse:
        """Compare a picture with another one, or with an enrolled identity; without a threshold by the model's own."""
        request = pb.VerifyRequest(name=self.name.gallery(gallery), image=_picture(image), threshold=threshold)
        if other_image is not None:
            request.other_image.CopyFrom(_picture(other_image))
        else:
            request.identity_id = identity_id
        return self._caller.unary(self._galleries.Verify, request, timeout_seconds=PREDICT_SECONDS)

    def identify(
        self, gallery: str, image: Picture, *, top_k: int = 0, threshold: float | None = None
    ) -> pb.IdentifyResponse:
        """Return the enrolled identities that a picture resembles most."""
        request = pb.IdentifyRequest(
            name=self.name.gallery(gallery), image=_picture(image), top_k=top_k, threshold=threshold
        )
        return self._caller.unary(self._galleries.Identify, request, timeout_seconds=PREDICT_SECONDS)

    def reenrol_gallery(self, gallery: str, *, deployment: str = "") -> Iterator[pb.ReenrolGalleryResponse]:
        """Move a gallery to the model version of a deployment, its own where none is named; yield how far it is.

        The last one has the gallery as it is then. Interrupted, another call goes on.
        """
        request = pb.ReenrolGalleryRequest(
            name=self.name.gallery(gallery), deployment=self.name.deployment(deployment) if deployment else ""
        )
        return self._caller.stream(self._galleries.ReenrolGallery, request)


def _picture(image: Picture) -> pb.FaceImage:
    if isinstance(image, pb.FaceImage):
        return image
    return pb.FaceImage(content=image if isinstance(image, bytes) else Path(image).read_bytes())
