"""Predictions through the platform: one envelope to a ready replica, its answer back.

Replicas come from the database and are remembered for a moment, so that a prediction costs no query. A
replica that does not answer is passed over, and what is remembered is forgotten.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog

from services.core import names
from services.core.clock import MonotonicClock
from services.core.errors import (
    EndpointUnavailable,
    PlatformError,
    PreconditionFailed,
    PredictionFailed,
    RequestInvalid,
)
from services.core.states import DeploymentState
from services.db.deployments import Deployment, Replica
from services.deployments.manager import DeploymentManager

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)

REMEMBER_SECONDS = 1.0
MAX_REMEMBERED = 1000
TIMEOUT_SECONDS = 120.0
CONNECT_SECONDS = 2.0
MAX_CONNECTIONS = 256
_INPUT_FAULTS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE})
_BROKEN = frozenset({HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.NOT_IMPLEMENTED})
# Both come with status 400: a token that ended, and one that was rotated away.
_NOT_AUTHORISED = frozenset({"InvalidTokenException", "InvalidKeyException"})


@dataclass(frozen=True, slots=True)
class Input:
    """One instance: encoded bytes, or named inputs."""

    body: bytes | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One prediction for each instance, in order; a text is why there is none."""

    predictions: tuple[Mapping[str, Any] | str, ...]
    model_version: str
    recipe: str


class _TryNext(Exception):
    """One replica cannot answer now; another may."""


class Predictor:
    """Forwards predictions. One for each server; belongs to its event loop."""

    def __init__(self, deployments: DeploymentManager, *, clock: MonotonicClock = time.monotonic) -> None:
        self._deployments = deployments
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[float, Deployment]] = {}

    async def predict(
        self, project: str, deployment_id: str, inputs: Sequence[Input], params: Mapping[str, Any]
    ) -> Answer:
        """Return the answers to all inputs.

        Raises:
            DeploymentNotFound: the project has no such deployment.
            RequestInvalid: no input can be answered; the message says why.
            EndpointUnavailable: no replica answers now.
            PreconditionFailed: the deployment failed, and no replica answers.
            PredictionFailed: the serving process failed on this request.
        """
        deployment = await self._find(project, deployment_id)
        body = _render(inputs, params)
        for replica in _callable_replicas(deployment):
            try:
                return await self._ask(replica, deployment, body, len(inputs))
            except _TryNext as err:
                self._known.pop((project, deployment_id), None)
                log.warning("replica_passed_over", agent=replica.agent_id, reason=str(err))
        raise _unavailable(deployment)

    async def close(self) -> None:
        if "_client" in self.__dict__:
            await self._client.aclose()

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        # Imported with the first prediction: it would take a tenth of the server's start.
        import httpx

        return httpx.AsyncClient(
            timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            trust_env=False,
        )

    async def _find(self, project: str, deployment_id: str) -> Deployment:
        key = (project, deployment_id)
        until, deployment = self._known.get(key, (0.0, None))
        if deployment is not None and self._clock() < until:
            return deployment
        deployment = await self._deployments.get(project, deployment_id)
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = (self._clock() + REMEMBER_SECONDS, deployment)
        return deployment

    async def _ask(self, replica: Replica, deployment: Deployment, body: bytes, count: int) -> Answer:
        url = f"{replica.inference_url.rstrip('/')}/predictions/{deployment.model_name}"
        # TorchServe decodes JSON by itself where it sees the media type; the handler wants the bytes.
        headers = {"authorization": f"Bearer {replica.token}", "content-type": "application/octet-stream"}
        client = self._client
        from httpx import HTTPError

        try:
            response = await client.post(url, content=body, headers=headers)
        except HTTPError as err:
            raise _TryNext(type(err).__name__) from err
        if response.status_code == HTTPStatus.OK:
            return _parse(response.content, deployment.project, count)
        reason, kind = _reason(response)
        if response.status_code in _INPUT_FAULTS and kind not in _NOT_AUTHORISED:
            raise RequestInvalid(reason)
        if response.status_code in _BROKEN:
            raise PredictionFailed(reason)
        raise _TryNext(f"{response.status_code} {kind}")


def _render(inputs: Sequence[Input], params: Mapping[str, Any]) -> bytes:
    if len(inputs) == 1 and inputs[0].body is not None and not params and inputs[0].body[:64].lstrip()[:1] != b"{":
        # One encoded image needs no envelope, and base64 costs a third more bytes and a copy on both sides.
        return inputs[0].body
    instances = [
        dict(one.fields) if one.body is None else {"image": {"b64": base64.b64encode(one.body).decode()}}
        for one in inputs
    ]
    return json.dumps({"instances": instances, "params": dict(params)}, separators=(",", ":")).encode()


def _parse(content: bytes, project: str, count: int) -> Answer:
    try:
        document = json.loads(content)
        predictions = document["predictions"]
        model = document["model"]
        version = names.model_version(project, model["name"], int(model["version"]))
        recipe = str(model["recipe"])
    except (ValueError, KeyError, TypeError) as err:
        raise PredictionFailed("the answer is not in the envelope of predictions") from err
    if not isinstance(predictions, list) or len(predictions) != count:
        raise PredictionFailed("the answer has another number of predictions than the request has instances")
    return Answer(tuple(_prediction(one) for one in predictions), version, recipe)


def _prediction(value: Any) -> Mapping[str, Any] | str:
    if not isinstance(value, dict):
        return {"value": value}
    return str(value["error"]) if value.keys() == {"error"} else value


def _reason(response: httpx.Response) -> tuple[str, str]:
    """Return message and type of an error in TorchServe's shape."""
    try:
        document = response.json()
        return str(document["message"]), str(document.get("type", ""))
    except (ValueError, KeyError, TypeError):
        return "the request was refused", ""


def _callable_replicas(deployment: Deployment) -> list[Replica]:
    """Return the replicas worth asking, ready ones first, else in random order.

    Where a new version failed, the one before it goes on answering under the same name.
    """
    replicas = [replica for replica in deployment.replicas if replica.is_ready or replica.is_failed]
    random.shuffle(replicas)
    return sorted(replicas, key=lambda replica: not replica.is_ready)


def _unavailable(deployment: Deployment) -> PlatformError:
    """Return the error to raise: waiting helps with every state but FAILED."""
    why = f"deployment {deployment.deployment_id!r} is {deployment.state.value} and no replica of it answers"
    message = f"{why}: {deployment.message}" if deployment.message else why
    is_failed = deployment.state is DeploymentState.FAILED
    return PreconditionFailed(message) if is_failed else EndpointUnavailable(message)
