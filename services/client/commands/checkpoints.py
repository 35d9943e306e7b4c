"""`trainyard checkpoints`: the resumable states of a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from trainyard.v1 import job_pb2

from services.client.choice import BEST, choose
from services.client.command import CommandFailed, Invocation, command
from services.client.errors import ApiError
from services.client.names import short
from services.client.output import human_time
from services.client.plain import as_dict
from services.client.transfer_view import transfer_bar
from services.core.units import human_bytes

_METRIC = "METRIC"


@click.group()
def checkpoints() -> None:
    """See, fetch and delete the resumable states of a job."""


@checkpoints.command("list")
@click.argument("job")
@command
def list_(invocation: Invocation, *, job: str) -> None:
    """List the checkpoints of a job, the highest step first."""
    with invocation.client() as client:
        found = list(client.list_checkpoints(job))
        has_figures = any(each.HasField("metric") for each in found)
        column = _metric_name(client.get_job(job).recipe) if has_figures else _METRIC
    if invocation.out.is_json:
        invocation.out.document({"checkpoints": [as_dict(each) for each in found]})
        return
    rows = [
        (
            short(each.name),
            str(each.step),
            _figure(each),
            human_bytes(each.size_bytes),
            human_time(each.create_time),
        )
        for each in found
    ]
    invocation.out.table(("CHECKPOINT", "STEP", column, "SIZE", "CREATED"), rows, empty="no checkpoints")


@checkpoints.command()
@click.argument("given", metavar="JOB[/CHECKPOINT]")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--checkpoint",
    "checkpoint_id",
    default="",
    help="Its id, its step, or best, also as JOB/best; default: the one of the highest step.",
)
@command
def download(invocation: Invocation, *, given: str, folder: Path, checkpoint_id: str) -> None:
    """Fetch every file of a checkpoint into FOLDER, verified."""
    job, named = _split(given)
    if named and checkpoint_id:
        raise click.UsageError(f"name the checkpoint once: {given} or --checkpoint {checkpoint_id}")
    with invocation.client() as client:
        found = _find(job, list(client.list_checkpoints(job)), named or checkpoint_id)
        with transfer_bar(Console(stderr=True), "downloading") as on_progress:
            files = client.download_files(found.name, found.files, folder, on_progress=on_progress)
    if invocation.out.is_json:
        paths = [{"path": str(each.path), "size_bytes": each.size_bytes, "sha256": each.sha256} for each in files]
        invocation.out.document({"checkpoint": as_dict(found), "files": paths})
    else:
        invocation.out.say(f"step {found.step}: {len(files)} files in {folder}, each as its sha256 says")


@checkpoints.command()
@click.argument("job")
@click.argument("checkpoint_ids", metavar="[CHECKPOINT]...", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="All of the job.")
@command
def delete(invocation: Invocation, *, job: str, checkpoint_ids: tuple[str, ...], is_all: bool) -> None:
    """Delete checkpoints of a job that has ended, to free their space; models made of them stay."""
    if bool(checkpoint_ids) == is_all:
        raise click.UsageError("name the checkpoints to delete, or say --all")
    with invocation.client() as client:
        found = list(client.list_checkpoints(job))
        wanted = found if is_all else [_find(job, found, each) for each in checkpoint_ids]
        for each in wanted:
            client.delete_checkpoint(each.name)
    if invocation.out.is_json:
        invocation.out.document({"deleted": [each.name for each in wanted]})
    else:
        size = human_bytes(sum(each.size_bytes for each in wanted))
        word = "checkpoint" if len(wanted) == 1 else "checkpoints"
        invocation.out.say(f"deleted {len(wanted)} {word} of {short(job)}, {size}")


def _metric_name(recipe: str) -> str:
    """Return what to call the figures of a recipe's checkpoints; a server may know recipes that this client does not."""
    from workers.families.catalog import CATALOG

    entry = CATALOG.get(recipe)
    return (entry.metric.upper() if entry is not None else "") or _METRIC


def _figure(checkpoint: job_pb2.Checkpoint) -> str:
    if not checkpoint.HasField("metric"):
        return ""
    return f"{checkpoint.metric:.4f} (best)" if checkpoint.is_best else f"{checkpoint.metric:.4f}"


def _find(job: str, found: Sequence[job_pb2.Checkpoint], checkpoint_id: str) -> job_pb2.Checkpoint:
    """Return the checkpoint that was named, the one of the highest step where none was.

    Raises:
        CommandFailed: there is none, or several have that step.
    """
    if not checkpoint_id and found:
        return found[0]
    try:
        return choose(job, found, checkpoint_id or BEST)
    except ApiError as err:
        raise CommandFailed(f"{err.message}; `trainyard checkpoints list {short(job)}` shows them") from err


def _split(given: str) -> tuple[str, str]:
    """Return job and checkpoint of `JOB`, of `JOB/CHECKPOINT` or of their full names; without one it is empty."""
    job, _, checkpoint_id = given.partition("/checkpoints/" if given.startswith("projects/") else "/")
    return job, checkpoint_id
