"""The prediction envelope of every family: bytes of a request in, instances out, and answers back to bytes.

Free of any server. A body that starts with an opening brace is the JSON envelope, anything else one raw
input with default parameters; content types are not trusted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.families.base import Instance, InstanceInvalid

MAX_INSTANCES = 64
_EXPECTED = '{"instances": [{"image": {"b64": "..."}}], "params": {}}'


class RequestRejected(ValueError):
    """The whole request cannot be answered; the message says why and what to send."""


@dataclass(frozen=True, slots=True)
class Request:
    """The instances of one request, in order; one that could not be read is its error."""

    instances: tuple[Instance | InstanceInvalid, ...]


def parse_request(body: bytes | bytearray) -> Request:
    """Read a request.

    Raises:
        RequestRejected: the body is empty, or no envelope.
    """
    if not body:
        raise RequestRejected(f"the request is empty: send an encoded image, or JSON such as {_EXPECTED}")
    if body[:64].lstrip()[:1] != b"{":
        return Request((Instance(body=bytes(body), fields={}, params={}),))
    envelope = _load_json(body)
    unknown = sorted(set(envelope) - {"instances", "params"})
    if unknown:
        raise RequestRejected(f"unknown keys {unknown}: send JSON such as {_EXPECTED}")
    params, instances = envelope.get("params", {}), envelope.get("instances")
    if not isinstance(params, dict):
        raise RequestRejected("params is not an object")
    if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
        raise RequestRejected(f"instances is not a list of 1 to {MAX_INSTANCES}: send JSON such as {_EXPECTED}")
    return Request(tuple(_parse_instance(instance, params) for instance in instances))


def render_response(predictions: Sequence[Mapping[str, Any] | InstanceInvalid], *, model: Mapping[str, Any]) -> bytes:
    """Return the body of an answer; an instance that failed has its reason in place of a prediction.

    Raises:
        RequestRejected: every instance failed, so that the request as a whole has no answer.
        ValueError: an answer is not finite JSON, which is the handler's fault.
    """
    errors = [prediction for prediction in predictions if isinstance(prediction, InstanceInvalid)]
    if len(errors) == len(predictions):
        reasons = [str(error) for error in errors]
        raise RequestRejected(reasons[0] if len(set(reasons)) == 1 else "; ".join(_numbered(reasons)))
    rendered = [
        {"error": str(prediction)} if isinstance(prediction, InstanceInvalid) else prediction
        for prediction in predictions
    ]
    document = {"predictions": rendered, "model": model}
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode()


def _load_json(body: bytes | bytearray) -> dict[str, Any]:
    try:
        envelope = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise RequestRejected(f"the body is not valid JSON: {err}") from err
    return dict(envelope)


def _parse_instance(instance: object, params: Mapping[str, Any]) -> Instance | InstanceInvalid:
    if not isinstance(instance, dict):
        return InstanceInvalid("an instance is not an object")
    fields = dict(instance)
    image = fields.pop("image", None)
    if image is None:
        return Instance(body=None, fields=fields, params=params)
    if not isinstance(image, dict) or not isinstance(image.get("b64"), str):
        return InstanceInvalid('image is not of the form {"b64": "..."}')
    try:
        body = base64.b64decode(image["b64"], validate=True)
    except (binascii.Error, ValueError) as err:
        return InstanceInvalid(f"image.b64 is not valid base64: {err}")
    return Instance(body=body, fields=fields, params=params)


def _numbered(reasons: Sequence[str]) -> list[str]:
    return [f"instance {number}: {reason}" for number, reason in enumerate(reasons)]
