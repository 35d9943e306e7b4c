"""Embeddings of pictures: asked of a deployment, and taken only from the model version they are meant for."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.core import names
from services.core.errors import (
    DeploymentNotFound,
    PreconditionFailed,
    RequestInvalid,
    VersionsDiffer,
    Violation,
)
from services.deployments.predict import Answer, Input, Predictor

if TYPE_CHECKING:
    from services.galleries.matrix import VectorF


@dataclass(frozen=True, slots=True)
class Source:
    """A deployment, the model version whose embeddings are wanted of it, and the gallery they are for.

    `way_out` says what helps where the deployment answers with another version.
    """

    project: str
    deployment_id: str
    model_version: str
    gallery_id: str
    way_out: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image of a face, with the five points that align it where somebody knows them."""

    content: bytes
    landmarks: Sequence[Sequence[float]] = ()


@dataclass(frozen=True, slots=True)
class Face:
    """The unit embedding of one picture, and the similarity from which on its model takes two for one person."""

    vector: VectorF
    threshold: float | None


class Embedder:
    """Asks deployments; one for each server."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    async def faces(self, source: Source, pictures: Sequence[Picture], *, fields: Sequence[str]) -> list[Face]:
        """Return the face of each picture, in order; `fields` name the pictures in the request.

        Raises:
            VersionsDiffer: the deployment answers with another model version.
            RequestInvalid: a picture is broken or cannot be aligned; each is named.
            PreconditionFailed: the deployment is gone, failed, or is of a model that embeds nothing.
            EndpointUnavailable: no replica answers now.
        """
        try:
            answer = await self._ask(source, [_input(picture) for picture in pictures])
        except RequestInvalid as err:
            if len(fields) > 1:
                raise
            # What is wrong with a picture that was sent alone fails the whole call.
            raise RequestInvalid(violations=[Violation(fields[0], str(err))]) from err
        _check_version(source, answer)
        outcomes = zip(fields, answer.predictions, strict=True)
        bad = [Violation(field, found) for field, found in outcomes if isinstance(found, str)]
        if bad:
            raise RequestInvalid(violations=bad)
        return [_face(found, source, answer) for found in answer.predictions if not isinstance(found, str)]

    async def _ask(self, source: Source, inputs: Sequence[Input]) -> Answer:
        try:
            return await self._predictor.predict(source.project, source.deployment_id, inputs, {})
        except DeploymentNotFound as err:
            raise PreconditionFailed(
                f"deployment {source.deployment_id!r} of gallery {source.gallery_id!r} is gone: deploy {_label(source.model_version)} "
                f"under that name again, or move the gallery with ReenrolGallery (`trainyard galleries reenrol "
                f"{source.gallery_id} --deployment NAME`)"
            ) from err


def _input(picture: Picture) -> Input:
    if not picture.landmarks:
        return Input(body=picture.content, fields={})
    image = {"b64": base64.b64encode(picture.content).decode()}
    return Input(body=None, fields={"image": image, "landmarks": [list(point) for point in picture.landmarks]})


def _check_version(source: Source, answer: Answer) -> None:
    if answer.model_version == source.model_version:
        return
    raise VersionsDiffer(
        f"deployment {source.deployment_id!r} answers with {_label(answer.model_version)}, but what is compared here is of "
        f"{_label(source.model_version)}, and embeddings of different versions must not be compared: {source.way_out}"
    )


def _face(found: Mapping[str, Any], source: Source, answer: Answer) -> Face:
    from services.galleries import matrix

    vector = matrix.unit(found.get("embedding"))
    if vector is None:
        raise PreconditionFailed(
            f"deployment {source.deployment_id!r} serves {answer.recipe}, which answers no `embedding`; galleries need a "
            "model that does, such as one of the family face"
        )
    threshold = found.get("threshold")
    is_known = isinstance(threshold, int | float) and math.isfinite(threshold)
    return Face(vector, float(threshold) if is_known and threshold is not None else None)


def _label(model_version: str) -> str:
    parsed = names.parse(model_version, "models", "versions")
    return f"{parsed.ids[0]}/{parsed.ids[1]}"
