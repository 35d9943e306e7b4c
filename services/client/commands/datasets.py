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
from services.client.deletion import delete_each
from services.client.names import short
from services.client.output import Output, human_time
from services.client.pack import ARCHIVE_SUFFIXES, SINGLE_SUFFIXES, PathInvalid, as_archive, empty_folders
from services.client.plain import as_dict
from services.client.sdk import DatasetFields, Trainyard
from services.client.transfer_view import transfer_bar
from services.core.names import SLUG
from services.core.units import human_bytes

F = TypeVar("F", bound=Callable[..., Any])

_PREFIX = "DATASET_FORMAT_"
_MOST_NAMED = 10
_AUTO = f"{_PREFIX}UNSPECIFIED"
_FORMATS = {"auto" if name == _AUTO else name.removeprefix(_PREFIX).lower(): name for name, _ in DatasetFormat.items()}
_UNITS = ("boxes", "images", "pixels")
"""What the report counts by class, of each family one."""
_MOST_CLASSES = 20


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
    help="classification, detection, segmentation, face, images, pairs, domains, points, text, parallel_text or weights, "
    "where a layout serves several.",
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
        next_step = hints.submit(
            short(dataset.name),
            dataset.family,
            client.list_recipes(),
            has_val="val" in dataset.splits,
            classes=dataset.classes,
        )
    _show(invocation.out, dataset)
    if "://" not in source:
        _say_what_is_empty(invocation.out, Path(source))
    if format_name == "auto" and not fields["family"] and hints.may_be_people(dataset):
        invocation.out.say(f"hint: {hints.PEOPLE}")
    if dataset.family == "weights":
        next_step = f"trainyard jobs submit ... --init-from datasets/{short(dataset.name)}"
    invocation.out.say(f"next: {next_step}")


def _say_what_is_empty(out: Output, source: Path) -> None:
    """Tell folders without files: only files are sent, so that the server never heard of them."""
    empty = empty_folders(source) if source.is_dir() else []
    if empty:
        more = f" and {len(empty) - _MOST_NAMED} more" if len(empty) > _MOST_NAMED else ""
        out.say(f"note: left out folders that are empty or links: {', '.join(empty[:_MOST_NAMED])}{more}")


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
            _classes(each),
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
        found = client.get_dataset(dataset, version=version or 0)
    _show(invocation.out, found)
    _say_counts_by_class(invocation.out, found)


@datasets.command()
@click.argument("dataset_ids", metavar="DATASET...", nargs=-1, required=True)
@command
def delete(invocation: Invocation, *, dataset_ids: tuple[str, ...]) -> None:
    """Delete datasets with all their versions."""
    with invocation.client() as client:
        # All are looked up first: a wrong name shall not leave half of them deleted.
        names = [client.get_dataset(name).name for name in dict.fromkeys(map(client.name.dataset, dataset_ids))]
        deleted, refusal = delete_each(names, client.delete_dataset)
    if invocation.out.is_json:
        if deleted or refusal is None:
            invocation.out.document({"deleted": deleted})
    elif deleted:
        invocation.out.say(f"deleted {', '.join(map(short, deleted))}")
    if refusal is not None:
        raise refusal


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
    report = as_dict(dataset)["report"] if dataset.HasField("report") else {}
    for note in report.get("notes", []):
        out.say(f"note: {note}")
    for reason, count in sorted(report.get("ignored", {}).items()):
        out.say(f"note: left out {reason}: {count:.0f}")


def _counts(split: dataset_pb2.SplitCounts) -> str:
    return ", ".join(f"{split.counts[unit]} {unit}" for unit in sorted(split.counts, reverse=True))


def _classes(dataset: dataset_pb2.Dataset) -> str:
    """Return how many classes there are, or people, of whom none is in two splits."""
    people = sum(split.counts["identities"] for split in dataset.splits.values() if "identities" in split.counts)
    if people and not dataset.classes:
        return "1 person" if people == 1 else f"{people} people"
    return str(len(dataset.classes))


def _say_counts_by_class(out: Output, dataset: dataset_pb2.Dataset) -> None:
    """Say how much there is of each class in each split, of many the first ones."""
    splits = as_dict(dataset)["report"].get("splits", {}) if dataset.HasField("report") else {}
    unit = next((unit for unit in _UNITS for counts in splits.values() if counts.get(f"{unit}_per_class")), None)
    if unit is None or not dataset.classes:
        return
    out.say(f"{unit} of each class:")
    width = max(len(name) for name in dataset.classes[:_MOST_CLASSES])
    for name in dataset.classes[:_MOST_CLASSES]:
        found = {split: (counts.get(f"{unit}_per_class") or {}).get(name, 0) for split, counts in splits.items()}
        text = " + ".join(f"{count:.0f} {split}" for split, count in sorted(found.items()))
        out.say(f"  {name.ljust(width)}  {text}")
    if (left_out := len(dataset.classes) - _MOST_CLASSES) > 0:
        out.say(f"  and {left_out} more")


def _images(dataset: dataset_pb2.Dataset) -> str:
    units = ("images", "points", "pairs", "lines")
    counts = {
        name: next((split.counts[unit] for unit in units if split.counts[unit]), 0)
        for name, split in dataset.splits.items()
    }
    return " + ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _default_id(path: Path) -> str:
    name = path.resolve().name.lower()
    for suffix in sorted((*ARCHIVE_SUFFIXES, *SINGLE_SUFFIXES), key=len, reverse=True):
        name = name.removesuffix(suffix)
    slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:63].strip("-")
    if not SLUG.fullmatch(slug):
        raise click.UsageError(f"no dataset id can be made from {path.name!r}; give one with --name")
    return slug
