"""JobService: translates and delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator

from trainyard.v1 import job_pb2 as pb
from trainyard.v1 import job_pb2_grpc

from services.core import names
from services.core.errors import RequestInvalid, Violation
from services.core.texts import check_reason
from services.jobs import convert
from services.jobs.manager import JobManager
from services.jobs.replies import MAX_EVENTS, Replies
from services.recipes.convert import recipe_id
from services.rpc.middleware import Context
from services.rpc.paging import page_request


class JobServicer(job_pb2_grpc.JobServiceServicer):
    """Jobs over gRPC."""

    def __init__(self, jobs: JobManager) -> None:
        self._jobs = jobs
        self._replies = Replies()

    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> pb.CreateJobResponse:
        job = await self._jobs.create(convert.job_request(request))
        return pb.CreateJobResponse(job=convert.job_to_proto(job))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        name = convert.job_id(request.name)
        job, attempts = await self._jobs.get(*name), await self._jobs.attempts(*name)
        waiting = await self._jobs.waiting(job)
        return pb.GetJobResponse(
            job=convert.job_to_proto(job),
            attempts=[convert.attempt_to_proto(attempt) for attempt in attempts],
            waiting=None if waiting is None else convert.waiting_to_proto(waiting),
        )

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        project = names.parse_project(request.parent)
        states = convert.states(list(request.states))
        paging = page_request(request.page_size, request.page_token, "jobs", project, states, request.recipe)
        recipe = recipe_id(request.recipe) or None
        page = await self._jobs.list(project, paging, states=states, recipe=recipe)
        return pb.ListJobsResponse(
            jobs=[convert.job_to_proto(job) for job in page.items], next_page_token=page.next_page_token
        )

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> AsyncIterator[pb.WatchJobResponse]:
        project, job_id = convert.job_id(request.name)
        if not 0 <= request.max_events <= MAX_EVENTS:
            text = f"must be from 1 to {MAX_EVENTS}, or 0 for 1, not {request.max_events}"
            raise RequestInvalid(violations=[Violation("max_events", text)])
        async for events in self._jobs.watch(project, job_id, request.after_seq):
            for reply in self._replies.of(events, request.name, request.max_events):
                yield reply

    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        job = await self._jobs.cancel(*convert.job_id(request.name), reason=check_reason(request.reason))
        return pb.CancelJobResponse(job=convert.job_to_proto(job))

    async def PauseJob(self, request: pb.PauseJobRequest, context: Context) -> pb.PauseJobResponse:
        job = await self._jobs.pause(*convert.job_id(request.name), reason=check_reason(request.reason))
        return pb.PauseJobResponse(job=convert.job_to_proto(job))

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> pb.ResumeJobResponse:
        job = await self._jobs.resume(*convert.job_id(request.name))
        return pb.ResumeJobResponse(job=convert.job_to_proto(job))

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Context) -> pb.DeleteJobResponse:
        await self._jobs.delete(*convert.job_id(request.name))
        return pb.DeleteJobResponse()

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, context: Context) -> pb.ListCheckpointsResponse:
        project, job_id = convert.job_id(request.parent, field="parent")
        paging = page_request(request.page_size, request.page_token, "checkpoints", request.parent)
        page, best_id = await self._jobs.list_checkpoints(project, job_id, paging)
        return pb.ListCheckpointsResponse(
            checkpoints=[convert.checkpoint_to_proto(project, row, best_id=best_id) for row in page.items],
            next_page_token=page.next_page_token,
        )

    async def DeleteCheckpoint(
        self, request: pb.DeleteCheckpointRequest, context: Context
    ) -> pb.DeleteCheckpointResponse:
        project, job_id, checkpoint_id = convert.checkpoint_id(request.name)
        await self._jobs.delete_checkpoint(project, job_id, checkpoint_id)
        return pb.DeleteCheckpointResponse()

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Context) -> pb.ListArtifactsResponse:
        project, job_id = convert.job_id(request.parent, field="parent")
        paging = page_request(request.page_size, request.page_token, "artifacts", request.parent)
        page = await self._jobs.list_artifacts(project, job_id, paging)
        return pb.ListArtifactsResponse(
            artifacts=[convert.artifact_to_proto(project, row) for row in page.items],
            next_page_token=page.next_page_token,
        )
