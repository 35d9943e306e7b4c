"""The part of the SDK that knows deployments: endpoints asked for, waited for, taken down and called."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.struct_pb2 import Struct
from trainyard.v1 import deployment_pb2, deployment_pb2_grpc

from services.client.channel import Caller
from services.client.errors import ApiError
from services.client.gallery_calls import PAGE_SIZE, PREDICT_SECONDS
from services.client.names import Namer
from services.client.pack import PathInvalid, check_image
from services.client.plain import as_struct
from services.core.clock import Deadline
from services.core.ids import new_id

_POLL_SECONDS = 0.25
_SETTLED = (deployment_pb2.DEPLOYMENT_STATE_READY, deployment_pb2.DEPLOYMENT_STATE_FAILED)


class DeploymentCalls:
    """Methods of `Trainyard` for the rpcs of DeploymentService."""

    name: Namer
    _caller: Caller
    _deployments: deployment_pb2_grpc.DeploymentServiceStub

    def create_deployment(
        self, deployment_id: str, *, model_version: str, workers: int = 0, request_id: str = ""
    ) -> deployment_pb2.Deployment:
        """Ask for an endpoint that serves a model version, named in full, as `model/3` or as `model`."""
        request = deployment_pb2.CreateDeploymentRequest(
            parent=self.name.parent,
            deployment_id=deployment_id,
            model_version=self.name.model_version(model_version),
            workers=workers,
            request_id=request_id or new_id(),
        )
        reply = self._caller.unary(self._deployments.CreateDeployment, request)
        return reply.deployment

    def update_deployment(
        self, deployment: str, *, model_version: str = "", workers: int = 0
    ) -> deployment_pb2.Deployment:
        """Serve another version or with another number of processes; empty and 0 keep what is."""
        request = deployment_pb2.UpdateDeploymentRequest(
            name=self.name.deployment(deployment),
            model_version=self.name.model_version(model_version) if model_version else "",
            workers=workers,
        )
        return self._caller.unary(self._deployments.UpdateDeployment, request).deployment

    def get_deployment(self, deployment: str) -> deployment_pb2.Deployment:
        request = deployment_pb2.GetDeploymentRequest(name=self.name.deployment(deployment))
        return self._caller.unary(self._deployments.GetDeployment, request).deployment

    def wait_until_served(
        self,
        deployment: str,
        *,
        timeout_seconds: float,
        on_change: Callable[[deployment_pb2.Deployment], None] = lambda deployment: None,
    ) -> deployment_pb2.Deployment:
        """Return the deployment once it is READY or FAILED; `on_change` sees every state and message before.

        Raises:
            TimeoutError: it is neither after `timeout_seconds`.
        """
        deadline = Deadline(timeout_seconds)
        shown: tuple[int, str] | None = None
        while True:
            found = self.get_deployment(deployment)
            if found.state in _SETTLED:
                return found
            if shown != (found.state, found.message):
                shown = (found.state, found.message)
                on_change(found)
            if deadline.is_over:
                state = deployment_pb2.DeploymentState.Name(found.state)
                raise TimeoutError(f"{found.name} is still {state} after {timeout_seconds:g} s; {found.message}")
            time.sleep(_POLL_SECONDS)

    def wait_until_gone(self, deployment: str, *, timeout_seconds: float) -> None:
        """Return once a deployment that is being deleted is gone.

        Raises:
            TimeoutError: it is still there after `timeout_seconds`.
        """
        deadline = Deadline(timeout_seconds)
        while True:
            try:
                found = self.get_deployment(deployment)
            except ApiError as err:
                if err.code != "NOT_FOUND":
                    raise
                return
            if deadline.is_over:
                raise TimeoutError(f"{found.name} is still being taken down after {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def list_deployments(self) -> Iterator[deployment_pb2.Deployment]:
        """Yield the deployments of the project, newest first."""
        request = deployment_pb2.ListDeploymentsRequest(parent=self.name.parent, page_size=PAGE_SIZE)
        return self._caller.pages(self._deployments.ListDeployments, request, lambda reply: reply.deployments)

    def delete_deployment(self, deployment: str) -> deployment_pb2.Deployment:
        """Take an endpoint down; it is gone once no serving machine reports it."""
        request = deployment_pb2.DeleteDeploymentRequest(name=self.name.deployment(deployment))
        reply = self._caller.unary(self._deployments.DeleteDeployment, request, is_repeatable=False)
        return reply.deployment

    def predict(
        self,
        deployment: str,
        inputs: Sequence[bytes | Path | str | Mapping[str, Any]],
        params: Mapping[str, Any] | None = None,
    ) -> deployment_pb2.PredictResponse:
        """Answer encoded images (bytes, or paths of files) or named inputs: one prediction each, in order.

        A text is the named input `{"text": "..."}`; a generator is asked by `[{}]` and `params`. A call takes at most
        64, of 16 MiB together. `services.client.pictures.save_reply` saves the pictures of what is returned.

        Raises:
            PathInvalid: a path is no file, or one without content.
        """
        instances = [_instance(one) for one in inputs]
        request = deployment_pb2.PredictRequest(
            name=self.name.deployment(deployment), instances=instances, params=as_struct(params)
        )
        return self._caller.unary(self._deployments.Predict, request, timeout_seconds=PREDICT_SECONDS)


def _instance(value: bytes | Path | str | Mapping[str, Any]) -> deployment_pb2.Instance:
    if isinstance(value, Mapping):
        return deployment_pb2.Instance(fields=as_struct(value) or Struct())
    if isinstance(value, bytes):
        return deployment_pb2.Instance(body=value)
    path = Path(value)
    try:
        check_image(path)
    except PathInvalid as err:
        raise PathInvalid(f'{err}, or a text as {{"text": "..."}}') from err
    return deployment_pb2.Instance(body=path.read_bytes())
