"""`trainyard models`: the results of jobs, by model and version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from trainyard.v1 import model_pb2

from services.client import describe
from services.client.command import CommandFailed, Invocation, command
from services.client.deletion import delete_each
from services.client.names import model_label, short
from services.client.output import Output, human_time
from services.client.plain import as_dict
from services.client.sdk import Trainyard
from services.client.transfer_view import transfer_bar
from services.core.units import human_bytes


@click.group()
def models() -> None:
    """See, make, fetch and delete trained models."""


@models.command("list")
@click.option("--model", default="", help="Only versions of this model.")
@command
def list_(invocation: Invocation, *, model: str) -> None:
    """List model versions, newest first."""
    with invocation.client() as client:
        found = list(client.list_model_versions(model=model))
    if invocation.out.is_json:
        invocation.out.document({"model_versions": [as_dict(each) for each in found]})
        return
    rows = [
        (
            model_label(each.name),
            each.recipe,
            describe.model_state(each.state),
            describe.figures(dict(each.metrics), "eval/"),
            human_bytes(each.size_bytes),
            human_time(each.create_time),
        )
        for each in found
    ]
    columns = ("MODEL", "RECIPE", "STATE", "FIGURES", "SIZE", "CREATED")
    invocation.out.table(columns, rows, empty="no models; a job that succeeds makes one")


@models.command()
@click.argument("model")
@command
def show(invocation: Invocation, *, model: str) -> None:
    """Show MODEL, its newest version, or one version as MODEL/3."""
    with invocation.client() as client:
        found = client.get_model_version(model)
    if invocation.out.is_json:
        invocation.out.document(found)
    else:
        _show(invocation.out, found)


@models.command()
@click.argument("checkpoint")
@click.option("--model", default="", help="Model to add a version to; default: the one of the checkpoint's job.")
@command
def create(invocation: Invocation, *, checkpoint: str, model: str) -> None:
    """Make a checkpoint, as JOB/CHECKPOINT, JOB/best or JOB/80 by its step, the next version of a model."""
    with invocation.client() as client:
        found = client.create_model_version(checkpoint, model=model)
    if invocation.out.is_json:
        invocation.out.document(found)
    else:
        invocation.out.say(f"model {model_label(found.name)} is {describe.model_state(found.state)}")


@models.command()
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@command
def download(invocation: Invocation, *, model: str, folder: Path) -> None:
    """Fetch the bundle of MODEL (or MODEL/3) into FOLDER, verified."""
    with invocation.client() as client:
        found = client.get_model_version(model)
        with transfer_bar(Console(stderr=True), "downloading") as on_progress:
            files = client.download_files(found.name, found.files, folder, on_progress=on_progress)
    if invocation.out.is_json:
        paths = [{"path": str(each.path), "size_bytes": each.size_bytes, "sha256": each.sha256} for each in files]
        invocation.out.document({"model_version": as_dict(found), "files": paths})
    else:
        invocation.out.say(f"{model_label(found.name)}: {len(files)} files in {folder}, each as its sha256 says")


@models.command()
@click.argument("versions", metavar="MODEL/VERSION...", nargs=-1, required=True)
@command
def delete(invocation: Invocation, *, versions: tuple[str, ...]) -> None:
    """Delete model versions that nothing uses, each as MODEL/3, to free their space."""
    with invocation.client() as client:
        if unnumbered := [each for each in versions if client.name.model_version(each).endswith("/latest")]:
            raise click.UsageError(f"name the version of {unnumbered[0]} too, such as {unnumbered[0]}/3")
        # All are looked up first: a wrong name shall not leave half of them deleted.
        found = _find(client, versions)
        deleted, refusal = delete_each(found, lambda each: client.delete_model_version(each.name))
    if invocation.out.is_json:
        if deleted or refusal is None:
            invocation.out.document({"deleted": [each.name for each in deleted]})
    elif deleted:
        size = human_bytes(sum(each.size_bytes for each in deleted))
        invocation.out.say(f"deleted {', '.join(model_label(each.name) for each in deleted)}, {size}")
    if refusal is not None:
        raise refusal


def _find(client: Trainyard, wanted: Sequence[str]) -> list[model_pb2.ModelVersion]:
    """Return versions, each once, without asking for their files: they may be what is damaged."""
    names = dict.fromkeys(client.name.model_version(each) for each in wanted)
    models_ = dict.fromkeys(name.partition("/versions/")[0] for name in names)
    known = {each.name: each for model in models_ for each in client.list_model_versions(model=model)}
    if missing := [model_label(name) for name in names if name not in known]:
        raise CommandFailed(f"no model version {', '.join(missing)}; see `trainyard models list`")
    return [known[name] for name in names]


def _show(out: Output, found: model_pb2.ModelVersion) -> None:
    out.facts(
        [
            ("model", model_label(found.name)),
            ("state", describe.model_state(found.state)),
            ("why", found.message),
            ("recipe", found.recipe),
            ("job", short(found.job)),
            ("checkpoint", short(found.checkpoint)),
            *((name, f"{value:.4f}") for name, value in sorted(found.metrics.items())),
            ("size", human_bytes(found.size_bytes)),
            ("files", ", ".join(file.name for file in found.files)),
            ("created", human_time(found.create_time)),
        ]
    )
