"""`trainyard datasets`: bring data in, look at it, make demo data."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, Unpack
from urllib.parse import urlsplit

import click
from rich.console import Console
from trainyard.v1 import dataset_pb2
from trainyard.v1.dataset_pb2 import DatasetFormat

from services.client import hints
from services.client.command import Invocation, command, local_command
from services.client.names import short
from services.client.output import Output, human_time
from services.client.pack import ARCHIVE_SUFFIXES, WEIGHTS_SUFFIX, PathInvalid, as_archive
from services.client.plain import as_dict
from services.client.sdk import DatasetFields, Trainyard
from services.client.transfer_view import transfer_bar
from services.core.names import SLUG
from services.core.units import human_bytes

F = TypeVar("F", bound=Callable[..., Any])

_PREFIX = "DATASET_FORMAT_"
_AUTO = f"{_PREFIX}UNSPECIFIED"
_FORMATS = {"auto" if name == _AUTO else name.removeprefix(_PREFIX).lower(): name for name, _ in DatasetFormat.items()}


@click.group()
def datasets() -> None:
    """Bring data in and look at it."""


@datasets.command("import")
@click.argument("source", metavar="PATH|URL")
@click.option(
    "--name", "dataset_id", help="Id of the dataset; default: from the file name. An old one gets a new version."
)
@click.option("--format", "format_name", type=click.Choice(list(_FORMATS)), default="auto", show_default=True)
@click.option(
    "--family",
    default="",
    help="classification, detection, segmentation, face, images, points or weights, where a layout serves several.",
)
@click.option("--val-fraction", default=0.0, help="Share set aside where the data has no val split; default: 0.1.")
@click.option("--split-seed", default=0, show_default=True, help="Another seed sets other images aside.")
@command
def import_(
    invocation: Invocation, *, source: str, dataset_id: str | None, format_name: str, **fields: Unpack[DatasetFields]
) -> None:
    """Bring a folder, an archive (zip, tar, tar.gz) or a .safetensors file in as a dataset, checked and made ready.

    The server fetches an archive that is named by a public https address itself.
    """
    fields["format"] = _FORMATS[format_name]
    with invocation.client() as client:
        if "://" in source:
            name = dataset_id or _default_id(Path(urlsplit(source).path))
            dataset = client.create_dataset_from_url(source, dataset_id=name, **fields)
        else:
            dataset = _upload(client, Path(source), dataset_id or _default_id(Path(source)), **fields)
        next_step = hints.submit(short(dataset.name), dataset.family, client.list_recipes())
    _show(invocation.out, dataset)
    if format_name == "auto" and not fields["family"] and hints.may_be_people(dataset):
        invocation.out.say(f"hint: {hints.PEOPLE}")
    if dataset.family == "weights":
        next_step = f"trainyard jobs submit ... --init-from datasets/{short(dataset.name)}"
    invocation.out.say(f"next: {next_step}")


def _upload(client: Trainyard, path: Path, dataset_id: str, **fields: Unpack[DatasetFields]) -> dataset_pb2.Dataset:
    console = Console(stderr=True)
    with (
        transfer_bar(console, "packing") as on_pack,
        as_archive(path, on_progress=on_pack) as archive,
        transfer_bar(console, "uploading", afterwards="checking and importing") as on_send,
    ):
        return client.create_dataset(archive, dataset_id=dataset_id, on_progress=on_send, **fields)


@datasets.command("list")
@command
def list_(invocation: Invocation) -> None:
    """List datasets by their newest versions, newest first."""
    with invocation.client() as client:
        found = list(client.list_datasets())
    if invocation.out.is_json:
        invocation.out.document({"datasets": [as_dict(each) for each in found]})
        return
    rows = [
        (
            short(each.name),
            str(each.version),
            each.family,
            str(len(each.classes)),
            _images(each),
            human_bytes(each.size_bytes),
            human_time(each.create_time),
        )
        for each in found
    ]
    columns = ("DATASET", "VERSION", "FAMILY", "CLASSES", "IMAGES", "SIZE", "CREATED")
    invocation.out.table(columns, rows, empty="no datasets; import one with `trainyard datasets import PATH`")


@datasets.command()
@click.argument("dataset")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="Show this one; default: the newest.")
@command
def show(invocation: Invocation, *, dataset: str, version: int | None) -> None:
    """Show a version of a dataset, with what the import found."""
    with invocation.client() as client:
        _show(invocation.out, client.get_dataset(dataset, version=version or 0))


@datasets.command()
@click.argument("dataset")
@command
def delete(invocation: Invocation, *, dataset: str) -> None:
    """Delete a dataset with all its versions."""
    with invocation.client() as client:
        client.delete_dataset(dataset)
    if invocation.out.is_json:
        invocation.out.document({"deleted": dataset})
    else:
        invocation.out.say(f"deleted {dataset}")


@datasets.command("catalogue")
@click.argument("query", default="")
@click.option("--family", default="", help="Only what this family of recipes could be trained on.")
@click.option("--task", default="", help="Only datasets for this task.")
@local_command
def catalogue_(out: Output, *, query: str, family: str, task: str) -> None:
    """List public datasets worth knowing; nothing is fetched, and the licence is yours to check."""
    from services.datasets.catalogue import search

    found = search(family=family, task=task, query=query)
    if out.is_json:
        out.document({"datasets": [entry.model_dump(mode="json", exclude_none=True) for entry in found]})
        return
    rows = [
        (
            entry.id,
            entry.name,
            ", ".join(entry.tasks),
            entry.size,
            entry.importer or f"({entry.format})",
            entry.url or "",
        )
        for entry in found
    ]
    out.table(("ID", "NAME", "TASKS", "SIZE", "FORMAT", "ADDRESS"), rows, empty="no dataset of the catalogue fits")


@datasets.group()
def demo() -> None:
    """Make data to try the platform with; needs no network."""


def _demo_options(function: F) -> F:
    """Give a demo command the options that every generator takes."""
    for option in (
        click.option("--seed", default=0, show_default=True, help="The same seed writes the same bytes."),
        click.option("--val", "val_images", default=150, show_default=True, help="Held-out pictures."),
        click.option("--train", "train_images", default=600, show_default=True, help="Pictures to train on."),
    ):
        function = option(function)
    return function


@demo.command("digit-scenes")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_demo_options
@local_command
def digit_scenes(out: Output, *, folder: Path, seed: int, train_images: int, val_images: int) -> None:
    """Write real handwritten digits on photos, with boxes, as a COCO folder."""
    from services.datasets.digit_scenes import write_digit_scenes

    _refuse_filled(folder)
    write_digit_scenes(folder, seed=seed, train_images=train_images, val_images=val_images)
    _wrote(out, folder)


@demo.command("shape-scenes")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_demo_options
@local_command
def shape_scenes(out: Output, *, folder: Path, seed: int, train_images: int, val_images: int) -> None:
    """Write coloured shapes on noise, with boxes, as a COCO folder: small and easy to learn."""
    from services.datasets.shape_scenes import write_shape_scenes

    _refuse_filled(folder)
    write_shape_scenes(folder, seed=seed, train_images=train_images, val_images=val_images)
    _wrote(out, folder)


def _refuse_filled(folder: Path) -> None:
    # Left-over images of another call would mix with the ones the annotations name.
    if folder.exists() and any(folder.iterdir()):
        raise PathInvalid(f"{folder} is not empty; give a new folder")


def _wrote(out: Output, folder: Path) -> None:
    if out.is_json:
        out.document({"folder": str(folder)})
    else:
        out.say(f"wrote {folder}\nnext: trainyard datasets import {folder}")


def _show(out: Output, dataset: dataset_pb2.Dataset) -> None:
    if out.is_json:
        out.document(dataset)
        return
    out.facts(
        [
            ("dataset", short(dataset.name)),
            ("version", str(dataset.version)),
            ("family", dataset.family),
            ("format", DatasetFormat.Name(dataset.format).removeprefix(_PREFIX).lower()),
            *([("classes", ", ".join(dataset.classes))] if dataset.classes else []),
            *((f"split {name}", _counts(split)) for name, split in sorted(dataset.splits.items())),
            ("size", human_bytes(dataset.size_bytes)),
            ("created", human_time(dataset.create_time)),
        ]
    )
    for note in as_dict(dataset)["report"].get("notes", []) if dataset.HasField("report") else []:
        out.say(f"note: {note}")


def _counts(split: dataset_pb2.SplitCounts) -> str:
    return ", ".join(f"{split.counts[unit]} {unit}" for unit in sorted(split.counts, reverse=True))


def _images(dataset: dataset_pb2.Dataset) -> str:
    counts = {name: split.counts["images"] or split.counts["points"] for name, split in dataset.splits.items()}
    return " + ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _default_id(path: Path) -> str:
    name = path.resolve().name.lower()
    for suffix in sorted((*ARCHIVE_SUFFIXES, WEIGHTS_SUFFIX), key=len, reverse=True):
        name = name.removesuffix(suffix)
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:63].strip("-")
    if not SLUG.fullmatch(slug):
        raise click.UsageError(f"no dataset id can be made from {path.name!r}; give one with --name")
    return slug
