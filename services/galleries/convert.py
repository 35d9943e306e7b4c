"""Galleries on the wire, and requests into the domain."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainyard.v1 import gallery_pb2 as pb

from services.core import names
from services.core.errors import RequestInvalid, Violation
from services.core.states import GalleryState
from services.core.texts import faults_of_request_id, faults_of_text
from services.db.identities import Identity
from services.galleries.embed import Picture
from services.galleries.enrolment import Person, Progress
from services.galleries.manager import Counted
from services.galleries.recognition import Ranking, Verdict
from services.jobs.convert import timestamp
from services.rpc.enums import enum_value

MAX_IMAGES = 16
MAX_MATCHES = 100
DEFAULT_MATCHES = 5
MAX_NAME = 200
_LANDMARKS = 5
_FARTHEST_PIXEL = 1e6
_GALLERY_STATES = {state: enum_value(pb.GalleryState, f"GALLERY_STATE_{state.name}") for state in GalleryState}
_STATES = {pb.IDENTITY_STATE_UNSPECIFIED: None, pb.IDENTITY_STATE_READY: True, pb.IDENTITY_STATE_NEEDS_IMAGES: False}


def gallery_name(name: str, *, field: str = "name") -> tuple[str, str]:
    """Return (project, gallery id)."""
    parsed = names.parse(name, "galleries", field=field)
    return parsed.project, parsed.ids[0]


def identity_name(name: str) -> tuple[str, str, str]:
    """Return (project, gallery id, identity id)."""
    parsed = names.parse(name, "galleries", "identities")
    return parsed.project, *parsed.ids  # type: ignore[return-value]  # as many as the collections


def deployment_id(name: str, project: str) -> str:
    """Return the id of a deployment, which is of the gallery's own project."""
    parsed = names.parse(name, "deployments", field="deployment")
    if parsed.project != project:
        text = f"belongs to project {parsed.project!r}; a gallery uses deployments of its own project {project!r}"
        raise RequestInvalid(violations=[Violation("deployment", text)])
    return parsed.ids[0]


def person(request: pb.EnrolIdentityRequest) -> Person:
    """Return whom to enrol.

    Raises:
        RequestInvalid: the id, the name or an image is not as it must be; all that is wrong is named.
    """
    names.check_slug(request.identity_id, field="identity_id")
    violations: list[Violation] = []
    violations += faults_of_text(request.display_name, field="display_name", most=MAX_NAME)
    violations += faults_of_request_id(request.request_id)
    if not 1 <= len(request.images) <= MAX_IMAGES:
        violations.append(Violation("images", f"must be 1 to {MAX_IMAGES} pictures, not {len(request.images)}"))
    for number, image in enumerate(request.images[:MAX_IMAGES]):
        violations += _faults(image, f"images[{number}]")
    if violations:
        raise RequestInvalid(violations=violations)
    return Person(
        identity_id=request.identity_id,
        display_name=request.display_name or request.identity_id,
        images=[_picture(image) for image in request.images],
        replace_existing=request.replace_existing,
        request_id=request.request_id,
    )


def picture(image: pb.FaceImage, *, field: str) -> Picture:
    """Return a picture.

    Raises:
        RequestInvalid: it is empty, or its landmarks are not five points.
    """
    if violations := _faults(image, field):
        raise RequestInvalid(violations=violations)
    return _picture(image)


def other(request: pb.VerifyRequest) -> Picture | str:
    """Return the other picture, or the id of the identity to compare with."""
    match request.WhichOneof("other"):
        case "other_image":
            return picture(request.other_image, field="other_image")
        case "identity_id":
            return names.check_slug(request.identity_id, field="identity_id")
        case _:
            text = "is missing: send it, or identity_id to compare with somebody enrolled"
            raise RequestInvalid(violations=[Violation("other_image", text)])


def threshold(request: pb.VerifyRequest | pb.IdentifyRequest) -> float | None:
    if not request.HasField("threshold"):
        return None
    if not -1 <= request.threshold <= 1:
        text = f"must be a cosine similarity from -1 to 1, not {request.threshold:g}; unset takes the model's own"
        raise RequestInvalid(violations=[Violation("threshold", text)])
    return request.threshold


def top_k(wanted: int) -> int:
    if not 0 <= wanted <= MAX_MATCHES:
        text = f"must be from 1 to {MAX_MATCHES}, not {wanted}; 0 means {DEFAULT_MATCHES}"
        raise RequestInvalid(violations=[Violation("top_k", text)])
    return wanted or DEFAULT_MATCHES


def is_ready(state: pb.IdentityState) -> bool | None:
    """Return what a list is filtered by; None takes all."""
    if state not in _STATES:
        text = f"has no state {state}; ask for IDENTITY_STATE_READY, IDENTITY_STATE_NEEDS_IMAGES or leave it out"
        raise RequestInvalid(violations=[Violation("state", text)])
    return _STATES[state]


def gallery_to_proto(counted: Counted) -> pb.Gallery:
    gallery = counted.gallery
    return pb.Gallery(
        name=names.gallery(gallery.project, gallery.gallery_id),
        deployment=names.deployment(gallery.project, gallery.deployment_id),
        model_version=names.model_version(gallery.project, gallery.model_id, gallery.version),
        keep_images=gallery.keep_images,
        revision=gallery.revision,
        identity_count=counted.counts.total,
        needs_images_count=counted.counts.needs_images,
        create_time=timestamp(gallery.create_time),
        update_time=timestamp(gallery.update_time),
        is_pinned=gallery.is_pinned,
        state=_GALLERY_STATES[gallery.state],
    )


def identity_to_proto(project: str, gallery_id: str, identity: Identity) -> pb.Identity:
    return pb.Identity(
        name=names.identity(project, gallery_id, identity.identity_id),
        display_name=identity.display_name,
        state=pb.IDENTITY_STATE_READY if identity.is_ready else pb.IDENTITY_STATE_NEEDS_IMAGES,
        image_count=identity.image_count,
        kept_image_count=identity.kept_image_count,
        create_time=timestamp(identity.create_time),
    )


def verdict_to_proto(verdict: Verdict) -> pb.VerifyResponse:
    return pb.VerifyResponse(
        is_same=verdict.is_same,
        similarity=verdict.similarity,
        distance=2 - 2 * verdict.similarity,
        threshold=verdict.threshold,
        model_version=verdict.model_version,
    )


def ranking_to_proto(project: str, gallery_id: str, ranking: Ranking) -> pb.IdentifyResponse:
    return pb.IdentifyResponse(
        matches=[
            pb.Match(
                identity=names.identity(project, gallery_id, match.identity_id),
                display_name=match.display_name,
                similarity=match.similarity,
                is_same=match.similarity >= ranking.threshold,
            )
            for match in ranking.matches
        ],
        is_unknown=ranking.is_unknown,
        threshold=ranking.threshold,
        compared_count=ranking.compared,
        needs_images_count=ranking.needs_images,
        model_version=ranking.model_version,
    )


def progress_to_proto(progress: Progress) -> pb.ReenrolGalleryResponse:
    gallery = gallery_to_proto(progress.ended) if progress.ended is not None else None
    return pb.ReenrolGalleryResponse(done_count=progress.done, total_count=progress.total, gallery=gallery)


def _faults(image: pb.FaceImage, field: str) -> Sequence[Violation]:
    if not image.content:
        return [Violation(f"{field}.content", "is empty: send an encoded image, such as a JPEG or PNG file")]
    points = [value for point in image.landmarks for value in (point.x, point.y)]
    if len(image.landmarks) not in (0, _LANDMARKS):
        text = f"must be none or {_LANDMARKS} points: left eye, right eye, nose, left and right corner of the mouth"
        return [Violation(f"{field}.landmarks", text)]
    if not all(math.isfinite(value) and abs(value) < _FARTHEST_PIXEL for value in points):
        return [Violation(f"{field}.landmarks", "must be pixels of the upright picture")]
    return []


def _picture(image: pb.FaceImage) -> Picture:
    return Picture(image.content, [(point.x, point.y) for point in image.landmarks])
