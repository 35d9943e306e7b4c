"""`trainyard predict`: ask a deployed model about pictures or texts, or a generator for some."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from trainyard.v1 import deployment_pb2

from services.client import hints
from services.client.arguments import deployment_name
from services.client.canvas import NotDrawn, canvas, check_target
from services.client.command import CommandFailed, Invocation, command
from services.client.draw import draw_file, save_as
from services.client.draw_samples import draw_answer, draw_beside
from services.client.errors import ApiError
from services.client.names import short
from services.client.output import Output
from services.client.overrides import parse_assignments
from services.client.pack import check_image
from services.client.pictures import describe, is_redrawn, prefix_of, save_pictures, without_pictures
from services.client.plain import as_dict
from services.client.sdk import Trainyard
from services.client.wording import by_field, of_files

# The API takes 64 instances and 16 MiB a call. Fewer at once are answered sooner, and one that fails loses less.
_BATCH = 16
_BATCH_BYTES = 3_000_000
_NO_TEXT, _NO_IMAGE = "unknown parameter 'text'", "no image: "
"""What models say of a text that take none, and how those begin that want a picture."""
_SHOWN = 40
"""Letters of a text that are its name."""


@click.command()
@click.argument("deployment", callback=deployment_name)
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, help="A text to ask about, taken as it is; may be repeated.")
@click.option(
    "--draw",
    "drawing",
    type=click.Path(path_type=Path),
    help="Draw the boxes, or save what the answer shows, of a translation beside what was sent: a file, one beside it for each of many images, or a folder.",
)
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Save every picture and text of the answers here.",
)
@click.option(
    "--param",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Such as score_threshold=0.3 or op=walk; may be repeated.",
)
@command
def predict(
    invocation: Invocation,
    *,
    deployment: str,
    images: tuple[Path, ...],
    texts: tuple[str, ...],
    drawing: Path | None,
    folder: Path | None,
    assignments: tuple[str, ...],
) -> None:
    """Ask a deployed model about IMAGES or texts, or without any for what --param says, such as a generator's samples."""
    if images and texts:
        raise click.UsageError("IMAGES and --text are questions to different models: give one of them")
    questions: tuple[_Question, ...] = images or tuple(map(_Text, texts))
    params = parse_assignments(assignments, option="--param")
    if drawing is not None:
        check_target(drawing, max(1, len(questions)))
    for image in images:
        check_image(image)
    with invocation.client() as client:
        predictions, broken = _ask_all(client, deployment, questions, params)
    asked: Sequence[_Question | None] = questions[: len(predictions)] or (None,)
    cases = [_Case(number, *pair) for number, pair in enumerate(zip(asked, predictions, strict=True), start=1)]
    drawn, undrawn = _draw(cases, drawing, max(1, len(questions))) if drawing is not None else ({}, None)
    saved, unsaved = _save(cases, folder) if folder is not None else ({}, None)
    if invocation.out.is_json:
        rows = [case.to_json(drawn.get(case.number), saved.get(case.number)) for case in cases]
        invocation.out.document({"predictions": rows})
    else:
        for case in cases:
            _show(invocation.out, case, drawn.get(case.number), saved.get(case.number, ()))
    if broken is not None:
        unasked, what = len(questions) - len(cases), "texts" if texts else "images"
        invocation.out.say(f"{unasked} of {len(questions)} {what} were not answered")
    failures = [err for err in (broken, _unanswered(cases), undrawn, unsaved) if err is not None]
    # The first is what the command fails with; the others are not to be lost for it.
    for failure in failures[1:]:
        invocation.out.error(failure)
    if failures:
        raise failures[0]


@dataclass(frozen=True, slots=True)
class _Text:
    """A text to ask about, called by how it begins."""

    text: str

    def __str__(self) -> str:
        line = " ".join(self.text.split())
        return f"--text {line!r}" if len(line) <= _SHOWN else f"--text {line[:_SHOWN] + '...'!r}"


_Question = Path | _Text


@dataclass(frozen=True, slots=True)
class _Case:
    """One question and its answer; `question` is None where the parameters were the question."""

    number: int
    question: _Question | None
    prediction: deployment_pb2.Prediction

    @property
    def image(self) -> Path | None:
        return self.question if isinstance(self.question, Path) else None

    @property
    def name(self) -> str:
        return "the request" if self.question is None else str(self.question)

    @property
    def stem(self) -> str:
        return "answer" if self.image is None else self.image.stem

    @property
    def prefix(self) -> str:
        return prefix_of(self.number, self.stem)

    @property
    def result(self) -> dict[str, Any] | None:
        """The answer, or None where there is an error."""
        has_one = self.prediction.HasField("result")
        return dict(as_dict(self.prediction)["result"]) if has_one else None

    def to_json(self, drawn: Path | None, saved: Sequence[Path] | None) -> dict[str, Any]:
        """Return everything; pictures that were saved are left out of the answer."""
        row = as_dict(self.prediction)
        if saved is not None and "result" in row:
            row |= {"result": without_pictures(row["result"]), "saved": [str(path) for path in saved]}
        image = None if self.image is None else str(self.image)
        asked = {"text": self.question.text} if isinstance(self.question, _Text) else {}
        return {"image": image, **asked, **row, "drawn": None if drawn is None else str(drawn)}


def _ask_all(
    client: Trainyard, deployment: str, questions: Sequence[_Question], params: dict[str, Any]
) -> tuple[list[deployment_pb2.Prediction], ApiError | None]:
    """Return the answers, in order, and what broke them off: those that are there are not to be lost."""
    answers: list[deployment_pb2.Prediction] = []
    for batch in _batches(questions):
        try:
            answers += _ask(client, deployment, batch, params)
        except ApiError as err:
            if not answers:
                raise
            return answers, err
    return answers, None


def _ask(
    client: Trainyard, deployment: str, questions: Sequence[_Question], params: dict[str, Any]
) -> list[deployment_pb2.Prediction]:
    """Return an answer to each question, or to the parameters alone where there is none."""
    inputs = [one if isinstance(one, Path) else {"text": one.text} for one in questions]
    try:
        return list(client.predict(deployment, inputs or [{}], params=params).predictions)
    except ApiError as err:
        if err.violations or err.code != "INVALID_ARGUMENT":
            raise
        if _is_no_reader(err, questions, params):
            raise err.restated(f"this model takes no text: ask it by `{_example(client, deployment)}`") from err
        raise _as_asked(err, questions, params) from err


def _is_no_reader(refusal: ApiError, questions: Sequence[_Question], params: dict[str, Any]) -> bool:
    """Return whether a text was refused by a model that takes none: the field it came in means nothing to it."""
    is_text = bool(questions) and isinstance(questions[0], _Text) and "text" not in params
    return is_text and (_NO_TEXT in refusal.message or refusal.message.startswith(_NO_IMAGE))


def _example(client: Trainyard, deployment: str) -> str:
    """Return a command that asks a deployment something it can answer."""
    version = client.get_deployment(deployment).model_version
    # Of a list, which reads no file of the model: a refusal is not to be lost for one.
    found = client.list_model_versions(model=version.partition("/versions/")[0])
    recipe = next((each.recipe for each in found if each.name == version), "")
    return hints.ask(short(deployment), recipe)


def _as_asked(refusal: ApiError, questions: Sequence[_Question], params: dict[str, Any]) -> ApiError:
    """Return what a model refuses with the parameter or the files that it is about."""
    # A parameter is as wrong for one image as for the next.
    if refusal.message.startswith("unknown parameter "):
        return refusal.restated(refusal.message)
    word = re.match(r"\w+", refusal.message)
    if word is not None and word[0] in params:
        return refusal.restated(f"--param {refusal.message}")
    names = [one if isinstance(one, Path) else str(one) for one in questions]
    return of_files(refusal, by_field("instances", names))


def _batches(questions: Sequence[_Question]) -> Iterator[list[_Question]]:
    """Yield the questions in as many calls as they need; without any the one call is empty."""
    batch: list[_Question] = []
    size = 0
    for one in questions:
        weight = one.stat().st_size if isinstance(one, Path) else len(one.text.encode(errors="replace"))
        if batch and (len(batch) == _BATCH or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += weight
    yield batch


def _draw(cases: Sequence[_Case], target: Path, count: int) -> tuple[dict[int, Path], NotDrawn | None]:
    """Draw every answer; returns where each drawing went, by the number of its case, and why one could not be made.

    What cannot be drawn is an answer all the same, and is shown before the command fails.
    """
    drawn: dict[int, Path] = {}
    undrawn = None
    for case in cases:
        if (result := case.result) is None:
            continue
        try:
            with canvas(target, case.number, count, stem=case.stem) as path:
                if "boxes" in result and case.image is not None:
                    draw_file(case.image, result, path)
                elif case.image is not None and is_redrawn(result):
                    save_as(draw_beside(case.image, result), path)
                else:
                    save_as(draw_answer(result), path)
        except NotDrawn as err:
            undrawn = err
        else:
            drawn[case.number] = path
    return drawn, undrawn


def _save(cases: Sequence[_Case], folder: Path) -> tuple[dict[int, list[Path]], CommandFailed | None]:
    """Save pictures and texts of every answer; returns where they went, by the number of the case, and why one could not be."""
    saved: dict[int, list[Path]] = {}
    for case in cases:
        if (result := case.result) is None:
            continue
        try:
            saved[case.number] = save_pictures(result, folder, prefix=case.prefix)
        except OSError as err:
            return saved, CommandFailed(f"--out {folder}: {err.filename or folder}: {err.strerror}")
    return saved, None


def _show(out: Output, case: _Case, drawn: Path | None, saved: Sequence[Path]) -> None:
    result = case.result
    where = f", drawn in {drawn}" if drawn else ""
    if result is None:
        out.say(f"{case.name}: {case.prediction.error.message}")
    elif "boxes" in result:
        boxes = list(zip(result["labels"], result["scores"], result["boxes"], strict=True))
        out.say(f"{case.name}: {len(boxes)} found{where}")
        for label, score, box in boxes:
            out.say(f"  {label}  {score:.2f}  [{', '.join(f'{value:.0f}' for value in box)}]")
    else:
        out.say(f"{case.name}: answered{where}")
        for line in describe(result):
            out.say(f"  {line}")
    for path in saved:
        out.say(f"  saved {path}")


def _unanswered(cases: Sequence[_Case]) -> CommandFailed | None:
    failed = [case for case in cases if case.result is None]
    if not failed:
        return None
    if len(failed) == 1:
        return CommandFailed(f"{failed[0].name} could not be answered")
    what = "images" if isinstance(cases[0].question, Path) else "texts"
    return CommandFailed(f"{len(failed)} of {len(cases)} {what} could not be answered: {failed[0].name} and so on")
