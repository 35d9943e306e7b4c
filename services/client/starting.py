"""How many deployments of a platform that has just started do not answer yet."""

from __future__ import annotations

import os
from pathlib import Path

from trainyard.v1 import deployment_pb2, deployment_pb2_grpc

from services.client.channel import Caller, open_channel
from services.client.credentials import resolve_credentials
from services.client.errors import ApiError, CredentialsInvalid
from services.client.gallery_calls import PAGE_SIZE
from services.client.names import Namer

_PATIENCE_SECONDS = 2.0
_COMING = (
    deployment_pb2.DEPLOYMENT_STATE_PENDING,
    deployment_pb2.DEPLOYMENT_STATE_BUILDING,
    deployment_pb2.DEPLOYMENT_STATE_STARTING,
)


def describe_starting(address: str, token_file: Path) -> str:
    """Say how many deployments of the token's project are not ready yet; nothing where all are, or nobody tells.

    Only a remark: it waits for no API that is slow, and needs none that takes this token.
    """
    try:
        states = _states(address, token_file)
    except (ApiError, CredentialsInvalid):
        return ""
    coming = sum(state in _COMING for state in states)
    if not coming:
        return ""
    return f"{coming} of {len(states)} deployments do not answer yet; `trainyard deployments list` shows where they are"


def _states(address: str, token_file: Path) -> list[deployment_pb2.DeploymentState]:
    shown = resolve_credentials(address, os.environ, token_file=str(token_file))
    request = deployment_pb2.ListDeploymentsRequest(parent=Namer(shown.project).parent, page_size=PAGE_SIZE)
    with open_channel(address, shown.tls) as channel:
        listing = deployment_pb2_grpc.DeploymentServiceStub(channel).ListDeployments
        reply = Caller(address, shown.metadata).unary(
            listing, request, is_repeatable=False, timeout_seconds=_PATIENCE_SECONDS
        )
    return [each.state for each in reply.deployments]
