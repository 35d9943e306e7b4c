"""`trainyard jobs`: submit, follow, list, steer and delete, and fetch what a job made."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from trainyard.v1 import job_pb2

from services.client import describe
from services.client.command import CommandFailed, Invocation, command, going_on
from services.client.deletion import delete_each
from services.client.live import make_watcher
from services.client.names import model_label, short
from services.client.output import Output, human_time
from services.client.overrides import nest, parse_assignments
from services.client.plain import as_dict
from services.client.sdk import JobFields, Trainyard
from services.client.transfer_view import transfer_bar
from services.core.units import human_bytes

_STATES = {
    "queued": job_pb2.JOB_STATE_QUEUED,
    "running": job_pb2.JOB_STATE_RUNNING,
    "cancelling": job_pb2.JOB_STATE_CANCELLING,
    "pausing": job_pb2.JOB_STATE_PAUSING,
    "paused": job_pb2.JOB_STATE_PAUSED,
    "succeeded": job_pb2.JOB_STATE_SUCCEEDED,
    "failed": job_pb2.JOB_STATE_FAILED,
    "cancelled": job_pb2.JOB_STATE_CANCELLED,
}
_CLASSES = {
    "auto": job_pb2.RESOURCE_CLASS_UNSPECIFIED,
    "cpu": job_pb2.RESOURCE_CLASS_CPU,
    "gpu": job_pb2.RESOURCE_CLASS_GPU,
}


@click.group()
def jobs() -> None:
    """Train models and follow them."""


@jobs.command()
@click.argument("recipe")
@click.option("--dataset", required=True, help="Dataset id; its newest version is trained on.")
@click.option("--dataset-version", default=0, help="Train on this version instead.")
@click.option("--preset", default="", help="Preset to start from; default: full.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override, such as optim.lr=0.01; may be repeated."
)
@click.option(
    "--resources",
    type=click.Choice(list(_CLASSES)),
    default="auto",
    show_default=True,
    help="Whose workers take it; auto: those of CPU jobs, which use a GPU where they have one.",
)
@click.option("--processes", default=1, show_default=True, help="Processes that share each batch, one per GPU.")
@click.option(
    "--init-from",
    default="",
    metavar="SOURCE",
    help="Weights to start from: MODEL, MODEL/VERSION, JOB/CHECKPOINT, JOB/best, datasets/NAME or torchvision:WEIGHTS.",
)
@click.option("--model", "model_id", default="", help="Model that the result becomes a version of.")
@click.option("--title", default="", help="A title for people.")
@click.option("--priority", default=0, help="Lower runs first; waiting makes up for it.")
@click.option("--preemptible", "is_preemptible", is_flag=True, help="Give way to jobs of higher priority.")
@click.option("--watch", "is_watching", is_flag=True, help="Follow the job to its end.")
@command
def submit(
    invocation: Invocation,
    *,
    recipe: str,
    dataset: str,
    preset: str,
    assignments: tuple[str, ...],
    is_watching: bool,
    **options: str | int,
) -> None:
    """Ask for a training job. RECIPE is one of `trainyard recipes list`."""
    config = nest(parse_assignments(assignments))
    with invocation.client() as client:
        job = client.create_job(recipe, dataset=dataset, preset=preset, config=config, **_fields(options))
        if not is_watching:
            _submitted(invocation.out, client, job)
            return
        if invocation.out.is_json:
            invocation.out.record({"job": as_dict(job)})
        invocation.out.say(f"submitted {short(job.name)}; Ctrl-C stops watching, not the job")
        _watch(invocation.out, client, job, after_seq=0)


@jobs.command()
@click.argument("job")
@click.option("--after", "after_seq", default=0, help="Only events after this sequence number.")
@command
def watch(invocation: Invocation, *, job: str, after_seq: int) -> None:
    """Follow a job to its end; exits with 1 where it does not succeed."""
    with invocation.client() as client:
        _watch(invocation.out, client, client.get_job(job), after_seq=after_seq)


@jobs.command("list")
@click.option("--state", "states", multiple=True, type=click.Choice(list(_STATES)), help="Only jobs in this state.")
@click.option("--recipe", default="", help="Only jobs of this recipe.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most jobs to list.")
@command
def list_(invocation: Invocation, *, states: tuple[str, ...], recipe: str, limit: int) -> None:
    """List jobs, newest first."""
    wanted = [_STATES[state] for state in states]
    with invocation.client() as client:
        found = [job for _, job in zip(range(limit), client.list_jobs(states=wanted, recipe=recipe), strict=False)]
    if invocation.out.is_json:
        invocation.out.document({"jobs": [as_dict(job) for job in found]})
        return
    rows = [
        (
            short(job.name),
            job.recipe,
            short(job.dataset),
            describe.job_state(job.state),
            _steps(job),
            str(describe.num_attempts(job)),
            human_time(job.create_time),
            job.display_name,
        )
        for job in found
    ]
    columns = ("JOB", "RECIPE", "DATASET", "STATE", "STEP", "ATTEMPTS", "CREATED", "TITLE")
    invocation.out.table(columns, rows, empty="no jobs; submit one with `trainyard jobs submit RECIPE --dataset D`")


@jobs.command()
@click.argument("job")
@command
def show(invocation: Invocation, *, job: str) -> None:
    """Show one job with its attempts: what was tried, and why it ended."""
    with invocation.client() as client:
        _show(invocation.out, client.look_at_job(job))


@jobs.command()
@click.argument("job")
@click.option("--reason", default="", help="Why, for the job's history.")
@command
def cancel(invocation: Invocation, *, job: str, reason: str) -> None:
    """Ask a job to stop; a running one saves a checkpoint first."""
    with invocation.client() as client:
        found = client.cancel_job(job, reason=reason)
    _steered(invocation.out, found)


@jobs.command()
@click.argument("job")
@click.option("--reason", default="", help="Why, for the job's history.")
@command
def pause(invocation: Invocation, *, job: str, reason: str) -> None:
    """Keep a job from going on; a running one saves a checkpoint first."""
    with invocation.client() as client:
        _steered(invocation.out, client.pause_job(job, reason=reason))


@jobs.command()
@click.argument("job")
@command
def resume(invocation: Invocation, *, job: str) -> None:
    """Let a paused job go on from its checkpoint."""
    with invocation.client() as client:
        _steered(invocation.out, client.resume_job(job))


@jobs.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@command
def delete(invocation: Invocation, *, job_ids: tuple[str, ...]) -> None:
    """Delete jobs that have ended, with their history, checkpoints and artifacts; their models are deleted first."""
    with invocation.client() as client:
        # All are looked up first: a wrong name shall not leave half of them deleted.
        names = [client.get_job(name).name for name in dict.fromkeys(map(client.name.job, job_ids))]
        deleted, refusal = delete_each(names, client.delete_job)
    if invocation.out.is_json:
        if deleted or refusal is None:
            invocation.out.document({"deleted": deleted})
    elif deleted:
        invocation.out.say(f"deleted {', '.join(map(short, deleted))}")
    if refusal is not None:
        raise refusal


@jobs.command()
@click.argument("job")
@click.option("--follow", "is_following", is_flag=True, help="Go on until the job ends.")
@command
def logs(invocation: Invocation, *, job: str, is_following: bool) -> None:
    """Print what happened to a job, and the trainer's last lines where it failed."""
    with invocation.client() as client:
        found = client.get_job(job)
        with going_on(invocation.out, _how_it_goes_on(found)):
            for event in client.watch(found.name) if is_following or found.event_seq else ():
                _log(invocation.out, event)
                if not is_following and event.seq >= found.event_seq:
                    break


@jobs.command()
@click.argument("job")
@click.option(
    "--download", "folder", type=click.Path(path_type=Path, file_okay=False), help="Fetch all of them into a folder."
)
@command
def artifacts(invocation: Invocation, *, job: str, folder: Path | None) -> None:
    """List what a job stored: sample pictures, curves, TensorBoard files."""
    with invocation.client() as client:
        found = list(client.list_artifacts(job))
        # Newest first: of a file that grew, such as a log, only the last version is worth having.
        newest = {artifact.file_name: artifact.name for artifact in reversed(found)}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with transfer_bar(Console(stderr=True), "downloading") as on_progress:
                for name in newest.values():
                    client.download(name, folder, on_progress=on_progress)
    if invocation.out.is_json:
        invocation.out.document(
            {"artifacts": [as_dict(each) for each in found], "folder": str(folder) if folder else None}
        )
        return
    rows = [
        (each.file_name, each.kind, str(each.step), human_bytes(each.size_bytes), short(each.name)) for each in found
    ]
    invocation.out.table(("FILE", "KIND", "STEP", "SIZE", "ARTIFACT"), rows, empty="no artifacts")
    if folder is not None:
        repeated = ", the newest version of each" if len(newest) < len(found) else ""
        invocation.out.say(
            f"downloaded {len(newest)} {'file' if len(newest) == 1 else 'files'} into {folder}{repeated}"
        )


def _fields(options: dict[str, str | int]) -> JobFields:
    return JobFields(
        resources=job_pb2.Resources(
            resource_class=_CLASSES[str(options["resources"])], processes=int(options["processes"])
        ),
        display_name=str(options["title"]),
        model_id=str(options["model_id"]),
        priority=int(options["priority"]),
        is_preemptible=bool(options["is_preemptible"]),
        dataset_version=int(options["dataset_version"]),
        init_from=str(options["init_from"]),
    )


def _submitted(out: Output, client: Trainyard, job: job_pb2.Job) -> None:
    if out.is_json:
        out.document(job)
        return
    out.say(f"submitted {short(job.name)}")
    _say_why_it_waits(out, client, job)
    out.say(f"next: trainyard jobs watch {short(job.name)}")


def _say_why_it_waits(out: Output, client: Trainyard, job: job_pb2.Job) -> None:
    waiting = client.get_waiting(job.name)
    if waiting is not None and (why := describe.waiting(waiting)):
        out.say(f"waits: {why}")


def _steered(out: Output, job: job_pb2.Job) -> None:
    if out.is_json:
        out.document(job)
    else:
        out.say(f"{short(job.name)} is {describe.job_state(job.state)}")


def _watch(out: Output, client: Trainyard, job: job_pb2.Job, *, after_seq: int) -> None:
    with going_on(out, _how_it_goes_on(job)):
        if out.is_json:
            for event in client.watch(job.name, after_seq=after_seq):
                out.record({"event": as_dict(event)})
        else:
            _say_why_it_waits(out, client, job)
            _watch_live(client, job, after_seq=after_seq)
    ended = client.get_job(job.name)
    if out.is_json:
        out.record({"job": as_dict(ended)})
    elif ended.state == job_pb2.JOB_STATE_SUCCEEDED:
        _say_if_another_step_was_better(out, client, ended)
    _conclude(out, ended)


def _how_it_goes_on(job: job_pb2.Job) -> str:
    name = short(job.name)
    return f"the job goes on: `trainyard jobs watch {name}` shows it again, `trainyard jobs cancel {name}` stops it"


def _say_if_another_step_was_better(out: Output, client: Trainyard, job: job_pb2.Job) -> None:
    found = list(client.list_checkpoints(job.name))
    best = next((each for each in found if each.is_best), None)
    if best is None or best.step == (newest := found[0]).step:
        return
    instead = f" instead of {newest.metric:.4f}" if newest.HasField("metric") else ""
    remedy = f"`trainyard models create {short(job.name)}/best` makes a model of it"
    out.say(f"step {best.step} did better than the last, {best.metric:.4f}{instead}: {remedy}")


def _watch_live(client: Trainyard, job: job_pb2.Job, *, after_seq: int) -> None:
    watcher = make_watcher(Console(), f"{job.recipe} {short(job.name)}")
    try:
        for event in client.watch(job.name, after_seq=after_seq, on_reconnect=watcher.reconnecting):
            watcher.see(event)
    finally:
        watcher.close()


def _conclude(out: Output, job: job_pb2.Job) -> None:
    if job.state == job_pb2.JOB_STATE_SUCCEEDED:
        label = model_label(job.model_version)
        out.say(f"succeeded: model {label}\nnext: trainyard deploy {label} --wait")
        return
    if job.state == job_pb2.JOB_STATE_CANCELLED:
        out.say("cancelled")
        sys.exit(1)
    if job.failure.log_tail:
        out.say(job.failure.log_tail.rstrip())
    raise CommandFailed(f"the job {describe.job_state(job.state)}: {describe.failure(job.failure)}")


def _log(out: Output, event: job_pb2.JobEvent) -> None:
    if out.is_json:
        out.record({"event": as_dict(event)})
        return
    out.say(f"{human_time(event.create_time)}  {describe.event(event)}")
    ended = {"failure": event.failure, "requeued": event.requeued.failure}.get(event.WhichOneof("payload") or "")
    if ended is not None and ended.log_tail:
        out.say(ended.log_tail.rstrip())


def _show(out: Output, found: job_pb2.GetJobResponse) -> None:
    job, attempts = found.job, found.attempts
    waiting = found.waiting if found.HasField("waiting") else None
    if out.is_json:
        shown = None if waiting is None else as_dict(waiting)
        out.document({**as_dict(job), "attempts": [as_dict(each) for each in attempts], "waiting": shown})
        return
    out.facts(
        [
            ("job", short(job.name)),
            ("title", job.display_name),
            ("recipe", f"{job.recipe} ({job.preset})"),
            ("dataset", f"{short(job.dataset)} ({job.dataset_version_id})"),
            ("state", describe.job_state(job.state)),
            ("waits", describe.waiting(waiting) if waiting is not None else ""),
            ("step", _steps(job)),
            ("attempts", describe.attempts(job)),
            ("checkpoint", f"step {job.checkpoint_step}" if job.HasField("checkpoint_step") else ""),
            ("model", model_label(job.model_version)),
            ("failure", describe.failure(job.failure) if job.HasField("failure") else ""),
            ("created", human_time(job.create_time)),
            ("started", human_time(job.start_time)),
            ("ended", human_time(job.end_time)),
        ]
    )
    ends = [describe.attempt_end(each, job) for each in attempts]
    if len(attempts) > 1 or any(ends):
        # The last ones are shown, and a number is kept however many of those before were given back.
        first = max(1, describe.num_attempts(job) - len(attempts) + 1)
        rows = [
            (
                str(number),
                each.worker_id,
                describe.attempt_state(each.state),
                human_time(each.start_time),
                end,
            )
            for number, (each, end) in enumerate(zip(attempts, ends, strict=True), first)
        ]
        out.say("")
        out.table(("ATTEMPT", "WORKER", "STATE", "STARTED", "WHY IT ENDED"), rows, empty="")


def _steps(job: job_pb2.Job) -> str:
    return f"{job.progress.step}/{job.progress.total_steps}" if job.progress.total_steps else ""
