"""`trainyard deploy` and `trainyard deployments`: models made callable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click
from trainyard.v1 import deployment_pb2, job_pb2

from services.client import describe, hints
from services.client.arguments import deployment_name, deployment_names
from services.client.command import CommandFailed, Invocation, command, going_on
from services.client.deletion import delete_each
from services.client.errors import ApiError
from services.client.names import model_label, served_name, short
from services.client.output import Output, human_time
from services.client.plain import as_dict
from services.client.sdk import Trainyard
from services.core.clock import Deadline
from services.core.units import human_bytes

_NO_DIFFERENCES = ("milliseconds", "forms")
_JOB_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")


@click.command()
@click.argument("model")
@click.option("--name", "deployment_id", default="", help="Id of the deployment; default: the model's.")
@click.option("--workers", default=0, help="Serving processes on each machine; default: 1, or as many as there are.")
@click.option("--wait", "is_waiting", is_flag=True, help="Return once it answers.")
@click.option("--timeout", "timeout_seconds", default=300.0, show_default=True, help="Seconds to wait at most.")
@command
def deploy(
    invocation: Invocation,
    *,
    model: str,
    deployment_id: str,
    workers: int,
    is_waiting: bool,
    timeout_seconds: float,
) -> None:
    """Make a model callable. MODEL is a model, a version as MODEL/3, or the job that trained it.

    A deployment of that name goes on answering with its old version until the other one is ready.
    """
    with invocation.client() as client:
        version, recipe = _model_version(client, model)
        name = deployment_id or version.split("/")[3]
        deployment = _create_or_update(client, name, version=version, workers=workers)
        if is_waiting:
            with going_on(invocation.out, _how_it_goes_on(deployment)):
                deployment = client.wait_until_served(
                    deployment.name,
                    timeout_seconds=timeout_seconds,
                    on_change=lambda found: _say_state(invocation.out, found),
                )
    if invocation.out.is_json:
        invocation.out.document(deployment)
    else:
        invocation.out.say(f"{short(deployment.name)} is {describe.deployment_state(deployment.state)}")
    if deployment.state == deployment_pb2.DEPLOYMENT_STATE_FAILED:
        raise CommandFailed(f"{short(deployment.name)} cannot be served: {deployment.message}")
    if deployment.state == deployment_pb2.DEPLOYMENT_STATE_READY:
        invocation.out.say(f"next: {hints.ask(short(deployment.name), recipe)}")


@click.group()
def deployments() -> None:
    """See and take down what is callable."""


@deployments.command("list")
@command
def list_(invocation: Invocation) -> None:
    """List the deployments, newest first."""
    with invocation.client() as client:
        found = list(client.list_deployments())
    if invocation.out.is_json:
        invocation.out.document({"deployments": [as_dict(each) for each in found]})
        return
    rows = [
        (
            short(each.name),
            model_label(each.model_version),
            describe.deployment_state(each.state),
            f"{sum(replica.is_ready for replica in each.replicas)}/{len(each.replicas)}",
            human_time(each.create_time),
            each.message,
        )
        for each in found
    ]
    columns = ("DEPLOYMENT", "MODEL", "STATE", "REPLICAS", "CREATED", "MESSAGE")
    invocation.out.table(columns, rows, empty="no deployments; make one with `trainyard deploy MODEL --wait`")


@deployments.command()
@click.argument("deployment", callback=deployment_name)
@command
def show(invocation: Invocation, *, deployment: str) -> None:
    """Show one deployment: its archives, its replicas and how to call them directly."""
    with invocation.client() as client:
        found = client.get_deployment(deployment)
    if invocation.out.is_json:
        invocation.out.document(found)
    else:
        _show(invocation.out, found)


@deployments.command()
@click.argument("names", metavar="DEPLOYMENT...", nargs=-1, required=True, callback=deployment_names)
@click.option("--wait", "is_waiting", is_flag=True, help="Return once they are gone.")
@click.option("--timeout", "timeout_seconds", default=60.0, show_default=True, help="Seconds to wait at most.")
@command
def delete(invocation: Invocation, *, names: tuple[str, ...], is_waiting: bool, timeout_seconds: float) -> None:
    """Take deployments down."""
    with invocation.client() as client:
        # All are looked up first: a wrong name shall not leave half of them taken down.
        found = [client.get_deployment(name) for name in dict.fromkeys(map(client.name.deployment, names))]
        deleted: list[deployment_pb2.Deployment] = []
        _, refusal = delete_each(found, lambda each: deleted.append(client.delete_deployment(each.name)))
        if is_waiting:
            deadline = Deadline(timeout_seconds)
            for each in deleted:
                client.wait_until_gone(each.name, timeout_seconds=deadline.remaining)
    _say_deleted(invocation.out, deleted, is_gone=is_waiting)
    if refusal is not None:
        raise refusal


def _say_deleted(out: Output, deleted: Sequence[deployment_pb2.Deployment], *, is_gone: bool) -> None:
    if out.is_json:
        if deleted:
            out.document({"deployments": [as_dict(each) for each in deleted]})
        return
    for each in deleted:
        out.say(f"{short(each.name)} is {'gone' if is_gone else describe.deployment_state(each.state)}")


def _model_version(client: Trainyard, model: str) -> tuple[str, str]:
    """Return the full name and the recipe of a version, for a model, a version or a job."""
    if "/jobs/" in model or _JOB_ID.fullmatch(model):
        job = client.get_job(model)
        if not job.model_version:
            state = describe.job_state(job.state)
            raise CommandFailed(f"job {short(job.name)} is {state} and has no model{_how_to_get_one(client, job)}")
        return job.model_version, job.recipe
    found = client.get_model_version(model)
    return found.name, found.recipe


def _how_to_get_one(client: Trainyard, job: job_pb2.Job) -> str:
    """Return the end of a sentence that says how a job without a model comes to one."""
    name = short(job.name)
    if job.state == job_pb2.JOB_STATE_PAUSED:
        return f"; `trainyard jobs resume {name}` lets it go on"
    if job.state in _unfinished():
        return f"; wait for it: `trainyard jobs watch {name}`"
    found = list(client.list_checkpoints(name))
    if not found:
        return f", nor a checkpoint to make one of: `trainyard jobs show {name}` says why, then submit it again"
    which = "best" if any(each.is_best for each in found) else short(found[0].name)
    return f"; `trainyard models create {name}/{which}` makes one of a checkpoint"


def _create_or_update(client: Trainyard, name: str, *, version: str, workers: int) -> deployment_pb2.Deployment:
    try:
        return client.create_deployment(name, model_version=version, workers=workers)
    except ApiError as err:
        if err.code != "ALREADY_EXISTS":
            raise
    return client.update_deployment(name, model_version=version, workers=workers)


def _how_it_goes_on(deployment: deployment_pb2.Deployment) -> str:
    name = short(deployment.name)
    return (
        f"the deployment goes on: `trainyard deployments show {name}` says how far it is,"
        f" `trainyard deployments delete {name}` takes it down"
    )


def _unfinished() -> tuple[job_pb2.JobState, ...]:
    return (
        job_pb2.JOB_STATE_QUEUED,
        job_pb2.JOB_STATE_RUNNING,
        job_pb2.JOB_STATE_CANCELLING,
        job_pb2.JOB_STATE_PAUSING,
        job_pb2.JOB_STATE_PAUSED,
    )


def _say_state(out: Output, found: deployment_pb2.Deployment) -> None:
    out.say(f"{describe.deployment_state(found.state)} {found.message}".rstrip())


def _show(out: Output, found: deployment_pb2.Deployment) -> None:
    out.facts(
        [
            ("deployment", short(found.name)),
            ("model", model_label(found.model_version)),
            ("state", describe.deployment_state(found.state)),
            ("why", found.message),
            ("workers", str(found.workers)),
            ("created", human_time(found.create_time)),
        ]
    )
    if found.HasField("archive"):
        archive = found.archive
        state = deployment_pb2.ArchiveState.Name(archive.state).removeprefix("ARCHIVE_STATE_").lower()
        size = human_bytes(archive.size_bytes) if archive.size_bytes else ""
        out.say(f"archive {archive.target}: {' '.join(filter(None, (state, archive.form, size, archive.message)))}")
        if archive.parity.fields:
            _say_parity(out, archive.form, as_dict(archive)["parity"])
    for replica in found.replicas:
        ready = "ready" if replica.is_ready else "not ready"
        out.say(f"replica {replica.agent_id}: {' '.join(filter(None, (ready, replica.message)))}")
        if replica.is_ready:
            _say_replica(out, replica, served_name(found.name))


def _say_parity(out: Output, form: str, parity: Mapping[str, Any]) -> None:
    """Say what the gate measured of the served form, and what became of each other one."""
    differences = [f"{name} {value:g}" for name, value in sorted(parity.items()) if name not in _NO_DIFFERENCES]
    out.say(f"  farthest from the trainer's answers: {', '.join(differences)}")
    if "milliseconds" in parity:
        out.say(f"  one forward when it was built: {parity['milliseconds']:.1f} ms")
    for other in parity.get("forms", []):
        if other["form"] == form:
            continue
        if reason := other.get("reason"):
            out.say(f"  not {other['form']}: {reason}")
        else:
            out.say(f"  slower: {other['form']}, {other['milliseconds']:.1f} ms")


def _say_replica(out: Output, replica: deployment_pb2.Replica, model: str) -> None:
    url = f"{replica.inference_url.rstrip('/')}/predictions/{model}"
    out.say(f"  REST {url}\n  gRPC {replica.grpc_address}, model {model}")
    # Without one there is nothing to call it with: see Replica.token.
    if replica.token:
        out.say(f"  bearer token {replica.token}")
        # -T names no media type: TorchServe would read a form, curl's default for data, by itself.
        out.say(f"  curl -H 'Authorization: Bearer {replica.token}' -T IMAGE {url}")
