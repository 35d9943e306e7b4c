"""DeploymentService: translates and delegates."""

from __future__ import annotations

from trainyard.v1 import deployment_pb2 as pb
from trainyard.v1 import deployment_pb2_grpc

from services.core import names
from services.core.texts import check_request_id
from services.deployments import convert
from services.deployments.manager import DeploymentManager
from services.deployments.predict import Predictor
from services.identity.guard import principal
from services.rpc.middleware import Context
from services.rpc.paging import page_request
from services.rpc.structs import to_dict


class DeploymentServicer(deployment_pb2_grpc.DeploymentServiceServicer):
    """Deployments and predictions over gRPC."""

    def __init__(self, deployments: DeploymentManager, predictor: Predictor) -> None:
        self._deployments = deployments
        self._predictor = predictor

    async def CreateDeployment(
        self, request: pb.CreateDeploymentRequest, context: Context
    ) -> pb.CreateDeploymentResponse:
        project = names.parse_project(request.parent)
        deployment = await self._deployments.create(
            project,
            names.check_slug(request.deployment_id, field="deployment_id"),
            wanted=convert.wanted(request.model_version, project),
            workers=convert.check_workers(request.workers) or 1,
            request_id=check_request_id(request.request_id),
        )
        return pb.CreateDeploymentResponse(deployment=convert.deployment_to_proto(deployment))

    async def GetDeployment(self, request: pb.GetDeploymentRequest, context: Context) -> pb.GetDeploymentResponse:
        deployment = await self._deployments.get(*convert.deployment_name(request.name))
        has_tokens = await self._deployments.shares_serving_tokens(deployment.project, principal().role)
        return pb.GetDeploymentResponse(deployment=convert.deployment_to_proto(deployment, has_tokens=has_tokens))

    async def ListDeployments(self, request: pb.ListDeploymentsRequest, context: Context) -> pb.ListDeploymentsResponse:
        project = names.parse_project(request.parent)
        paging = page_request(request.page_size, request.page_token, "deployments", project)
        page = await self._deployments.list(project, paging)
        return pb.ListDeploymentsResponse(
            deployments=[convert.deployment_to_proto(row) for row in page.items],
            next_page_token=page.next_page_token,
        )

    async def UpdateDeployment(
        self, request: pb.UpdateDeploymentRequest, context: Context
    ) -> pb.UpdateDeploymentResponse:
        project, deployment_id = convert.deployment_name(request.name)
        deployment = await self._deployments.update(
            project,
            deployment_id,
            wanted=convert.wanted(request.model_version, project) if request.model_version else None,
            workers=convert.check_workers(request.workers),
        )
        return pb.UpdateDeploymentResponse(deployment=convert.deployment_to_proto(deployment))

    async def DeleteDeployment(
        self, request: pb.DeleteDeploymentRequest, context: Context
    ) -> pb.DeleteDeploymentResponse:
        deployment = await self._deployments.delete(*convert.deployment_name(request.name))
        return pb.DeleteDeploymentResponse(deployment=convert.deployment_to_proto(deployment))

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        project, deployment_id = convert.deployment_name(request.name)
        answer = await self._predictor.predict(project, deployment_id, convert.inputs(request), to_dict(request.params))
        return convert.answer_to_proto(answer)
