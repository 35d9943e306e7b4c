"""`trainyard galleries`: faces of known people, and whom a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from trainyard.v1 import gallery_pb2 as pb

from services.client.canvas import NotDrawn, canvas, check_target
from services.client.command import CommandFailed, Invocation, command
from services.client.draw_faces import draw_matches, draw_pair, load
from services.client.errors import ApiError
from services.client.names import model_label, short
from services.client.output import Output, describe_error, human_time
from services.client.pack import PathInvalid, check_image
from services.client.people import enrol_all, is_of_one, people, reason
from services.client.plain import as_dict
from services.client.transfer_view import count_bar
from services.client.wording import by_field, sending

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def galleries() -> None:
    """Know people by their faces."""


@galleries.command()
@click.argument("gallery_id", metavar="GALLERY")
@click.option("--deployment", required=True, help="The deployed face model that makes the embeddings.")
@click.option(
    "--keep-images", is_flag=True, help="Store enrolled images, so that another model version can embed them again."
)
@click.option(
    "--pinned", "is_pinned", is_flag=True, help="Stay with this version until `reenrol`, though images are kept."
)
@command
def create(invocation: Invocation, *, gallery_id: str, deployment: str, keep_images: bool, is_pinned: bool) -> None:
    """Make an empty gallery, bound to the model version that DEPLOYMENT serves."""
    with invocation.client() as client:
        found = client.create_gallery(gallery_id, deployment=deployment, keep_images=keep_images, is_pinned=is_pinned)
    if invocation.out.is_json:
        invocation.out.document(found)
    else:
        invocation.out.say(f"gallery {short(found.name)} holds embeddings of {model_label(found.model_version)}")
        invocation.out.say(f"next: trainyard galleries enrol {short(found.name)} WHO IMAGE...")


@galleries.command("list")
@command
def list_(invocation: Invocation) -> None:
    """List the galleries, newest first."""
    with invocation.client() as client:
        found = list(client.list_galleries())
    if invocation.out.is_json:
        invocation.out.document({"galleries": [as_dict(each) for each in found]})
        return
    columns = ("GALLERY", "MODEL", "STATE", "DEPLOYMENT", "IDENTITIES", "NEED IMAGES", "KEEPS IMAGES", "CREATED")
    rows = [_row(each) for each in found]
    invocation.out.table(columns, rows, empty="no galleries; make one with `trainyard galleries create`")


@galleries.command()
@click.argument("gallery")
@command
def pin(invocation: Invocation, *, gallery: str) -> None:
    """Keep a gallery with its model version until `reenrol`, though images are kept."""
    _pin(invocation, gallery, is_pinned=True)


@galleries.command()
@click.argument("gallery")
@command
def unpin(invocation: Invocation, *, gallery: str) -> None:
    """Let a gallery that keeps images follow its deployment."""
    _pin(invocation, gallery, is_pinned=False)


def _pin(invocation: Invocation, gallery: str, *, is_pinned: bool) -> None:
    with invocation.client() as client:
        found = client.pin_gallery(gallery, is_pinned=is_pinned)
    if invocation.out.is_json:
        invocation.out.document(found)
    elif is_pinned:
        invocation.out.say(f"gallery {short(found.name)} stays with {model_label(found.model_version)}")
    elif found.keep_images:
        invocation.out.say(f"gallery {short(found.name)} follows deployment {short(found.deployment)}")
    else:
        invocation.out.say(
            f"gallery {short(found.name)} keeps no images, so it still needs `trainyard galleries reenrol` to move"
        )


@galleries.command()
@click.argument("gallery")
@click.option("--needs-images", is_flag=True, help="Only those that must be enrolled again.")
@command
def identities(invocation: Invocation, *, gallery: str, needs_images: bool) -> None:
    """List who is enrolled, newest first."""
    state = pb.IDENTITY_STATE_NEEDS_IMAGES if needs_images else pb.IDENTITY_STATE_UNSPECIFIED
    with invocation.client() as client:
        found = list(client.list_identities(gallery, state=state))
    if invocation.out.is_json:
        invocation.out.document({"identities": [as_dict(each) for each in found]})
        return
    rows = [
        (short(each.name), each.display_name, _state(each), str(each.image_count), human_time(each.create_time))
        for each in found
    ]
    invocation.out.table(("IDENTITY", "NAME", "STATE", "IMAGES", "ENROLLED"), rows, empty="nobody")


@galleries.command()
@click.argument("gallery")
@click.argument("identity")
@click.argument("images", nargs=-1, required=True, type=_FILE)
@click.option("--name", "display_name", default="", help="What people call them; default: the id.")
@click.option("--replace", "replace_existing", is_flag=True, help="Enrol somebody anew who is enrolled.")
@command
def enrol(
    invocation: Invocation,
    *,
    gallery: str,
    identity: str,
    images: tuple[Path, ...],
    display_name: str,
    replace_existing: bool,
) -> None:
    """Enrol IDENTITY by up to 16 pictures of their face."""
    _check(images)
    with invocation.client() as client, sending(by_field("images", images)):
        found = client.enrol(gallery, identity, images, display_name=display_name, replace_existing=replace_existing)
    if invocation.out.is_json:
        invocation.out.document(found)
    else:
        invocation.out.say(f"{found.display_name} is enrolled with {found.image_count} images")


@galleries.command("enrol-folder")
@click.argument("gallery")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--replace", "replace_existing", is_flag=True, help="Enrol those anew who are enrolled.")
@command
def enrol_folder(invocation: Invocation, *, gallery: str, folder: Path, replace_existing: bool) -> None:
    """Enrol everybody with a folder of pictures in FOLDER, named by it; of more than 16 pictures the first."""
    found = people(folder)
    with invocation.client() as client, count_bar(Console(stderr=True), "enrolling") as on_progress:
        done = enrol_all(client, gallery, found, replace_existing=replace_existing, on_progress=on_progress)
    if invocation.out.is_json:
        refused = [{"folder": str(each), "why": why} for each, why in done.refused.items()]
        invocation.out.document({"identities": [as_dict(each) for each in done.enrolled], "refused": refused})
    else:
        for each, why in done.refused.items():
            invocation.out.say(f"{each}: {why}")
        invocation.out.say(f"{len(done.enrolled)} people are enrolled")
        if done.refused and done.enrolled:
            names = ", ".join(each.display_name for each in done.enrolled)
            invocation.out.say(f"  {names}; to enrol the whole folder again, add --replace")
    if done.stopped is not None:
        raise done.stopped
    if done.refused:
        raise CommandFailed(f"{len(done.refused)} of {len(found)} people were not enrolled")


@galleries.command()
@click.argument("gallery")
@click.argument("image", type=_FILE)
@click.argument("other", required=False, type=_FILE)
@click.option("--identity", "identity_id", default="", help="Compare with somebody enrolled instead of OTHER.")
@click.option("--threshold", type=float, help="Cosine similarity that makes two one; default: the model's.")
@click.option("--draw", "drawing", type=_FILE, help="Save a picture of the comparison.")
@command
def verify(
    invocation: Invocation,
    *,
    gallery: str,
    image: Path,
    other: Path | None,
    identity_id: str,
    threshold: float | None,
    drawing: Path | None,
) -> None:
    """Say whether IMAGE and OTHER, or an enrolled identity, show the same person."""
    if (other is None) == (not identity_id):
        raise click.UsageError("give OTHER or --identity, one of them")
    sent = {"image": image} if other is None else {"image": image, "other_image": other}
    _check(list(sent.values()))
    if drawing is not None:
        check_target(drawing)
    with invocation.client() as client, sending(sent):
        reply = client.verify(gallery, image, other_image=other, identity_id=identity_id, threshold=threshold)
    undrawn = None if drawing is None else _draw_pair(reply, image, other, drawing, label=identity_id)
    if invocation.out.is_json:
        drawn = str(drawing) if drawing is not None and undrawn is None else None
        invocation.out.document({**as_dict(reply), "drawn": drawn})
    else:
        word = "the same person" if reply.is_same else "different people"
        invocation.out.say(f"{word}: similarity {reply.similarity:.3f}, threshold {reply.threshold:.3f}")
    if undrawn is not None:
        raise undrawn


@galleries.command()
@click.argument("gallery")
@click.argument("images", nargs=-1, required=True, type=_FILE)
@click.option("--top", "top_k", default=0, help="Matches to show, at most 100; default: 5.")
@click.option("--threshold", type=float, help="Cosine similarity that makes two one; default: the model's.")
@click.option(
    "--draw",
    "drawing",
    type=click.Path(path_type=Path),
    help="A picture, one beside it for each of many images, or a folder.",
)
@command
def identify(
    invocation: Invocation,
    *,
    gallery: str,
    images: tuple[Path, ...],
    top_k: int,
    threshold: float | None,
    drawing: Path | None,
) -> None:
    """Say whom IMAGES show, among everybody enrolled."""
    _check(images)
    if drawing is not None:
        check_target(drawing, len(images))
    answers: list[_Answer] = []
    with invocation.client() as client:
        for image in images:
            try:
                answers.append(_Answer(image, client.identify(gallery, image, top_k=top_k, threshold=threshold)))
            except ApiError as err:
                if not is_of_one(err) and not answers:
                    raise
                answers.append(_Answer(image, err))
                if not is_of_one(err):
                    break
    drawn, undrawn = _draw(answers, drawing, len(images)) if drawing is not None else ({}, None)
    if invocation.out.is_json:
        invocation.out.document({"answers": [_row_of(each, drawn) for each in answers]})
    else:
        for each in answers:
            _show(invocation.out, each)
    _fail_for(answers)
    if undrawn is not None:
        raise undrawn


@galleries.command()
@click.argument("gallery")
@click.argument("identities", nargs=-1, required=True)
@command
def remove(invocation: Invocation, *, gallery: str, identities: tuple[str, ...]) -> None:
    """Delete IDENTITIES of a gallery with everything known of them."""
    with invocation.client() as client:
        for identity in identities:
            client.delete_identity(f"{client.name.gallery(gallery)}/identities/{identity}")
    if invocation.out.is_json:
        invocation.out.document({"removed": list(identities)})
    else:
        invocation.out.say(f"removed {', '.join(identities)}; backups from now on hold nothing of them")


@galleries.command()
@click.argument("gallery")
@command
def delete(invocation: Invocation, *, gallery: str) -> None:
    """Delete a gallery with everybody in it."""
    with invocation.client() as client:
        count = client.delete_gallery(gallery)
    if invocation.out.is_json:
        invocation.out.document({"identity_count": count})
    else:
        invocation.out.say(f"gallery {short(gallery)} is gone with {count} identities")


@galleries.command()
@click.argument("gallery")
@click.option("--deployment", default="", help="Deployment to move to; default: the gallery's own.")
@command
def reenrol(invocation: Invocation, *, gallery: str, deployment: str) -> None:
    """Move a gallery to the model version of a deployment; kept images are embedded again."""
    last = pb.ReenrolGalleryResponse()
    with invocation.client() as client, count_bar(Console(stderr=True), "embedding") as on_progress:
        for last in client.reenrol_gallery(gallery, deployment=deployment):
            on_progress(last.done_count, last.total_count)
    if not last.HasField("gallery"):
        raise CommandFailed("the platform ended before the gallery had moved; call again, it goes on where it was")
    if invocation.out.is_json:
        invocation.out.document(last.gallery)
        return
    found = last.gallery
    invocation.out.say(f"gallery {short(found.name)} holds embeddings of {model_label(found.model_version)}")
    if found.needs_images_count:
        invocation.out.say(
            f"{found.needs_images_count} of {found.identity_count} identities need images again: "
            f"trainyard galleries identities {short(found.name)} --needs-images"
        )


def _check(images: Sequence[Path]) -> None:
    if not images:
        raise PathInvalid("no pictures; give images such as JPEG or PNG files")
    for image in images:
        check_image(image)


def _row(found: pb.Gallery) -> tuple[str, ...]:
    return (
        short(found.name),
        model_label(found.model_version),
        pb.GalleryState.Name(found.state).removeprefix("GALLERY_STATE_").lower(),
        short(found.deployment),
        str(found.identity_count),
        str(found.needs_images_count),
        "yes" if found.keep_images else "no",
        human_time(found.create_time),
    )


def _state(found: pb.Identity) -> str:
    return pb.IdentityState.Name(found.state).removeprefix("IDENTITY_STATE_").lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back for one picture."""

    image: Path
    outcome: pb.IdentifyResponse | ApiError


def _draw(answers: Sequence[_Answer], target: Path, count: int) -> tuple[dict[Path, Path], NotDrawn | None]:
    """Draw every answer; returns where each drawing went, and why one could not be saved."""
    drawn: dict[Path, Path] = {}
    undrawn = None
    for number, each in enumerate(answers, start=1):
        if isinstance(each.outcome, ApiError):
            continue
        matches = [(match.display_name, match.similarity) for match in each.outcome.matches]
        try:
            with canvas(target, number, count, stem=each.image.stem) as path:
                draw_matches(load(each.image), matches, each.outcome.threshold).save(path)
        except NotDrawn as err:
            undrawn = err
        else:
            drawn[each.image] = path
    return drawn, undrawn


def _draw_pair(
    reply: pb.VerifyResponse, image: Path, other: Path | None, target: Path, *, label: str
) -> NotDrawn | None:
    """Draw what was compared; returns why it could not be saved."""
    similarity, threshold = reply.similarity, reply.threshold
    try:
        with canvas(target, stem=image.stem) as path:
            second = load(other) if other is not None else None
            draw_pair(load(image), second, label=label, similarity=similarity, threshold=threshold).save(path)
    except NotDrawn as err:
        return err
    return None


def _row_of(each: _Answer, drawn: dict[Path, Path]) -> dict[str, Any]:
    if isinstance(each.outcome, ApiError):
        return {"image": str(each.image), "error": describe_error(each.outcome)}
    path = drawn.get(each.image)
    return {"image": str(each.image), **as_dict(each.outcome), "drawn": str(path) if path else None}


def _show(out: Output, each: _Answer) -> None:
    reply = each.outcome
    if isinstance(reply, ApiError):
        out.say(f"{each.image}: {reason(reply)}")
        return
    who = "unknown" if reply.is_unknown else reply.matches[0].display_name
    out.say(f"{each.image}: {who}, of {reply.compared_count} compared, threshold {reply.threshold:.3f}")
    for match in reply.matches:
        out.say(f"  {short(match.identity)}  {match.similarity:.3f}{'' if match.is_same else '  below'}")


def _fail_for(answers: Sequence[_Answer]) -> None:
    failed = [(each.image, each.outcome) for each in answers if isinstance(each.outcome, ApiError)]
    if not failed:
        return
    # The last one ended it all: it is not about a picture.
    if not is_of_one(failed[-1][1]):
        raise failed[-1][1]
    names = ", ".join(str(image) for image, _ in failed[:3]) + (" and so on" if len(failed) > 3 else "")
    raise CommandFailed(f"{len(failed)} of {len(answers)} pictures were not compared: {names}")
