"""`trainyard predict`: ask a deployed model about pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from trainyard.v1 import deployment_pb2

from services.client.command import CommandFailed, Invocation, command
from services.client.draw import draw_file
from services.client.output import Output
from services.client.overrides import parse_assignments
from services.client.pack import PathInvalid
from services.client.plain import as_dict
from services.client.sdk import Trainyard

# The API takes 64 instances and a few megabytes a call.
_BATCH = 16
_BATCH_BYTES = 3_000_000


@click.command()
@click.argument("deployment")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--draw", "drawing", type=click.Path(path_type=Path), help="Draw boxes: a file, or a folder for many images."
)
@click.option("--param", "assignments", multiple=True, metavar="KEY=VALUE", help="Such as score_threshold=0.3.")
@command
def predict(
    invocation: Invocation,
    *,
    deployment: str,
    images: tuple[Path, ...],
    drawing: Path | None,
    assignments: tuple[str, ...],
) -> None:
    """Ask a deployed model about IMAGES."""
    params = parse_assignments(assignments, option="--param")
    for image in images:
        if not image.is_file():
            raise PathInvalid(f"{image} is no file; give an image")
    with invocation.client() as client:
        predictions = list(_predict(client, deployment, images, params))
    drawn = _draw(images, predictions, drawing) if drawing is not None else {}
    if invocation.out.is_json:
        invocation.out.document(
            {"predictions": [_answer(*pair, drawn) for pair in zip(images, predictions, strict=True)]}
        )
    else:
        for image, prediction in zip(images, predictions, strict=True):
            _show(invocation.out, image, prediction, drawn.get(image))
    failed = [image for image, each in zip(images, predictions, strict=True) if each.HasField("error")]
    if failed:
        raise CommandFailed(
            f"{len(failed)} of {len(images)} images could not be answered: {failed[0]} and so on"
            if len(failed) > 1
            else f"{failed[0]} could not be answered"
        )


def _predict(
    client: Trainyard, deployment: str, images: Sequence[Path], params: dict[str, Any]
) -> Iterator[deployment_pb2.Prediction]:
    for batch in _batches(images):
        yield from client.predict(deployment, batch, params=params).predictions


def _batches(images: Sequence[Path]) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for image in images:
        weight = image.stat().st_size
        if batch and (len(batch) == _BATCH or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += weight
    yield batch


def _draw(images: Sequence[Path], predictions: Sequence[deployment_pb2.Prediction], target: Path) -> dict[Path, Path]:
    """Draw every answered image; returns where each drawing went."""
    is_folder = len(images) > 1 or target.is_dir()
    if is_folder:
        target.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for number, (image, prediction) in enumerate(zip(images, predictions, strict=True), start=1):
        if prediction.HasField("result"):
            path = target / f"{number:03d}-{image.stem}.png" if is_folder else target
            draw_file(image, as_dict(prediction)["result"], path)
            drawn[image] = path
    return drawn


def _answer(image: Path, prediction: deployment_pb2.Prediction, drawn: dict[Path, Path]) -> dict[str, Any]:
    path = drawn.get(image)
    return {"image": str(image), **as_dict(prediction), "drawn": str(path) if path else None}


def _show(out: Output, image: Path, prediction: deployment_pb2.Prediction, drawn: Path | None) -> None:
    if prediction.HasField("error"):
        out.say(f"{image}: {prediction.error.message}")
        return
    result = as_dict(prediction)["result"]
    boxes = list(zip(result.get("labels", ()), result.get("scores", ()), result.get("boxes", ()), strict=True))
    where = f", drawn in {drawn}" if drawn else ""
    out.say(f"{image}: {len(boxes)} found{where}")
    for label, score, box in boxes:
        out.say(f"  {label}  {score:.2f}  [{', '.join(f'{value:.0f}' for value in box)}]")
