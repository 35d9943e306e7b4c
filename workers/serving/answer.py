"""Answers a batch of requests with a served bundle, so that no request can spoil another.

Free of any server: bytes in, status and bytes out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from workers.families.base import Instance, InstanceInvalid
from workers.families.images import ImageInvalid, open_image
from workers.serving.bundle import Served
from workers.serving.envelope import Request, RequestRejected, parse_request, render_response

log = structlog.get_logger()

_Prediction = Mapping[str, Any] | InstanceInvalid
_REASON_CHARACTERS = 500
MAX_REQUEST_PIXELS = 100_000_000
"""Of all images of one request: seconds of decoding, while other requests of the batch wait."""
MAX_DRAWN_PIXELS = 2**21
"""Of all pictures that one request asks a handler to draw, or of text for as long, for the same reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status by the numbers of HTTP, and a JSON body."""

    status: int
    body: bytes
    reason: str = ""


class PredictionFailed(Exception):
    """The handler failed on its own account, not because of the input."""


def answer_batch(served: Served, bodies: Sequence[bytes | bytearray]) -> list[Answer]:
    """Answer every request; all their instances go through the handler as one batch."""
    requests = [_parse(served, body) for body in bodies]
    instances = [
        instance
        for request in requests
        if isinstance(request, Request)
        for instance in request.instances
        if isinstance(instance, Instance)
    ]
    predictions = iter(_predict(served, instances))
    return [
        _reject(request) if isinstance(request, RequestRejected) else _answer(served, _merge(request, predictions))
        for request in requests
    ]


def _parse(served: Served, body: bytes | bytearray) -> Request | RequestRejected:
    try:
        request = parse_request(body)
        _check_pixels(request)
        _check_drawn(served, request)
    except RequestRejected as err:
        return err
    return request


def _check_pixels(request: Request) -> None:
    """Refuse what takes long to decode; one image alone is bounded by its decoder."""
    bodies = [one.body for one in request.instances if isinstance(one, Instance) and one.body is not None]
    if len(bodies) > 1 and sum(map(_pixels, bodies)) > MAX_REQUEST_PIXELS:
        text = f"the images have more than {MAX_REQUEST_PIXELS // 1_000_000} million pixels together"
        raise RequestRejected(f"{text}; send fewer of them in one request")


def _check_drawn(served: Served, request: Request) -> None:
    """Refuse what takes long to draw or to write; one instance alone is bounded by its handler."""
    instances = [one for one in request.instances if isinstance(one, Instance)]
    if len(instances) > 1 and sum(map(served.handler.weigh, instances)) > MAX_DRAWN_PIXELS:
        text = f"the instances ask for more than {MAX_DRAWN_PIXELS / 1e6:.1f} million pixels, or as much text, together"
        raise RequestRejected(f"{text}; send fewer of them in one request")


def _pixels(body: bytes) -> int:
    try:
        with open_image(body) as image:
            return image.width * image.height
    except ImageInvalid:
        # Refused later for what it is, or no image at all and none expected.
        return 0


def _merge(request: Request, predictions: Any) -> list[_Prediction | PredictionFailed]:
    return [next(predictions) if isinstance(instance, Instance) else instance for instance in request.instances]


def _predict(served: Served, instances: Sequence[Instance]) -> list[_Prediction | PredictionFailed]:
    if not instances:
        return []
    try:
        return list(served.handler.predict(instances, served.network))
    except Exception:
        if len(instances) == 1:
            log.exception("prediction_failed")
            return [PredictionFailed("the prediction failed")]
    # One of them broke the batch: answer each alone, so that only the culprit fails.
    return [prediction for instance in instances for prediction in _predict(served, [instance])]


def _answer(served: Served, predictions: Sequence[_Prediction | PredictionFailed]) -> Answer:
    answered = [prediction for prediction in predictions if not isinstance(prediction, PredictionFailed)]
    if len(answered) < len(predictions):
        return _error(500, "InternalError", "the prediction failed; the server's log has the reason")
    try:
        return Answer(200, render_response(answered, model={**served.model, "recipe": served.recipe}))
    except RequestRejected as err:
        return _reject(err)
    except ValueError:
        log.exception("answer_not_json")
        return _error(500, "InternalError", "the prediction is not finite")


def _reject(rejection: RequestRejected) -> Answer:
    return _error(400, "BadRequest", str(rejection)[:_REASON_CHARACTERS])


def _error(status: int, kind: str, reason: str) -> Answer:
    """Return an error in the shape TorchServe gives its own."""
    body = json.dumps({"code": status, "type": kind, "message": reason}, separators=(",", ":")).encode()
    return Answer(status, body, reason)
