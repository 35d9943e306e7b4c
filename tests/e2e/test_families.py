"""One recipe of each family, the whole way: data in, a job that loses its worker, an endpoint that answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from PIL import Image
from trainyard.v1 import deployment_pb2, job_pb2

from services.client.sdk import Trainyard
from tests.builders.digits import write_digits
from tests.builders.domains import write_two_digits
from tests.builders.english import write_english
from tests.builders.faces import write_celeba, write_people
from tests.builders.pairs import write_outlines
from tests.builders.pictures import odd_and_plain
from tests.builders.segmentation_scenes import write_segmentation_scenes
from tests.e2e.conftest import PLATFORMS, Trained
from tests.e2e.endpoints import Platform
from tests.stack.data import import_folder

Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recipe, its data, and what its endpoint must say of a held-out picture."""

    recipe: str
    data: str
    """Family of its data set."""
    write: Callable[[Path], Path]
    steps: int
    """Long enough to be killed in the middle."""
    ask: Callable[[Path], bytes | Mapping[str, Any]] = lambda folder: held_out(folder, "**/val/**/*.png")
    """What to send its endpoint."""
    params: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Answer], None]
    pictures: frozenset[str] = frozenset({"samples"})
    """What the job draws for its owner, beside its curves."""
    also: Callable[[Trainyard, str, Path], None] = lambda _client, _deployment, _folder: None
    """What else people do with its endpoint."""


def _is_ranked(answer: Answer) -> None:
    scores = [one["score"] for one in answer["labels"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert picture(answer["gradcam"]["b64"]).size == (28, 28)


def _is_mask(answer: Answer) -> None:
    mask = picture(answer["mask"]["b64"])
    assert mask.size == (64, 64)
    assert sum(one["pixels"] for one in answer["classes"]) == 64 * 64
    assert picture(answer["overlay"]["b64"]).size == (64, 64)


def _is_unit_vector(answer: Answer) -> None:
    assert sum(value * value for value in answer["embedding"]) == pytest.approx(1.0, abs=1e-4)


def _know_each_other(client: Trainyard, deployment: str, folder: Path) -> None:
    """Enrol everybody held out, and ask for one of them by the picture that was enrolled."""
    gallery = client.create_gallery("staff", deployment=deployment).name
    people = sorted((folder / "val").iterdir())
    first = {one: min(one.iterdir()) for one in people}
    for one, image in first.items():
        client.enrol(gallery, one.name.replace("_", "-"), [image])
    asked = people[0]

    found = client.identify(gallery, first[asked], top_k=3)
    verdict = client.verify(gallery, first[asked], identity_id=asked.name.replace("_", "-"))

    assert found.compared_count == len(people)
    assert found.matches[0].identity.endswith(asked.name.replace("_", "-"))
    assert [one.similarity for one in found.matches] == sorted((one.similarity for one in found.matches), reverse=True)
    assert verdict.is_same
    assert verdict.similarity == pytest.approx(1.0, abs=1e-3)
    assert client.delete_gallery(gallery) == len(people)


def _is_walk(answer: Answer) -> None:
    assert [picture(one["b64"]).size for one in answer["images"]] == [(32, 32)] * 5
    assert len({one["b64"] for one in answer["images"]}) == 5
    assert picture(answer["sheet"]["b64"]).width > 5 * 32


def _goes_on(answer: Answer) -> None:
    assert answer["tokens"] == len(answer["text"]) == 40
    assert answer["score"] < 0


def _scores_what_it_knows(client: Trainyard, deployment: str, _folder: Path) -> None:
    known, strange = (
        MessageToDict(reply.result)
        for reply in client.predict(
            deployment, [{"text": "The following example"}, {"text": "qzx jjq vvw"}], params={"op": "score"}
        ).predictions
    )
    assert known["bits_per_character"] < strange["bits_per_character"]


def _is_reconstruction(answer: Answer) -> None:
    assert picture(answer["input"]["b64"]).size == picture(answer["reconstruction"]["b64"]).size == (8, 8)
    assert len(answer["z"]) == 10


def _walks_between_pictures(client: Trainyard, deployment: str, folder: Path) -> None:
    """Walk from one held-out picture to another: both ends are their reconstructions."""
    images = sorted((folder / "val").rglob("*.png"))
    ends = [image.read_bytes() for image in (images[0], images[-1])]
    one, other = ({"b64": base64.b64encode(end).decode()} for end in ends)
    reconstructed = client.predict(deployment, ends).predictions

    (walked,) = client.predict(deployment, [{"op": "walk", "from": one, "to": other, "steps": 4}]).predictions

    found = MessageToDict(walked.result)["images"]
    expected = [MessageToDict(end.result)["reconstruction"] for end in reconstructed]
    assert [found[0], found[-1]] == expected
    assert len(found) == 4


def _is_repainted(answer: Answer) -> None:
    assert answer["size"] == answer["sent_size"]
    assert picture(answer["image"]["b64"]).size == tuple(map(int, reversed(answer["size"])))


def _is_filled_outline(answer: Answer) -> None:
    assert answer["size"] == answer["sent_size"] == [32, 32]
    assert picture(answer["image"]["b64"]).size == (32, 32)


def _is_told_alike_however_encoded(client: Trainyard, deployment: str, image: bytes, params: Mapping[str, Any]) -> None:
    with Image.open(io.BytesIO(image)) as opened:
        # Not a square: one that is turned has another size.
        pairs = odd_and_plain(opened.convert("RGB").crop((0, 0, opened.width, opened.height * 3 // 4)))
    odd, plain = (
        client.predict(deployment, list(images), params=params).predictions
        for images in zip(*pairs.values(), strict=True)
    )
    assert dict(zip(pairs, odd, strict=True)) == dict(zip(pairs, plain, strict=True))


def held_out(folder: Path, pattern: str) -> bytes:
    """Return the first picture that no step saw."""
    return min(folder.glob(pattern)).read_bytes()


def picture(text: str) -> Image.Image:
    """Return a picture that was sent as base64."""
    return Image.open(io.BytesIO(base64.b64decode(text)))


CASES = {
    "classification": Case(
        recipe="classification/mnist_cnn",
        data="classification",
        write=lambda folder: write_digits(folder, seed=0, train=200, val=100),
        steps=1500,
        params={"top_k": 3, "gradcam": True},
        check=_is_ranked,
        pictures=frozenset({"samples", "confusion"}),
    ),
    "segmentation": Case(
        recipe="segmentation/fcn",
        data="segmentation",
        write=lambda folder: write_segmentation_scenes(folder, seed=0, train=24, val=4),
        steps=60,
        ask=lambda folder: held_out(folder, "images/val/*.png"),
        params={"format": ["png_index", "overlay"]},
        check=_is_mask,
    ),
    "face": Case(
        recipe="face/triplet",
        data="face",
        write=lambda folder: write_people(folder, seed=0, train=(24, 6), val=(8, 4)),
        steps=200,
        check=_is_unit_vector,
        pictures=frozenset({"matches"}),
        also=_know_each_other,
    ),
    "gan": Case(
        recipe="gan/dcgan",
        data="images",
        write=lambda folder: write_celeba(folder, seed=0, count=160),
        steps=60,
        ask=lambda _folder: {"op": "walk", "from": 1, "to": 2, "steps": 5, "sheet": True},
        check=_is_walk,
        pictures=frozenset({"samples", "walk"}),
    ),
    "text": Case(
        recipe="text/rnn_lm",
        data="text",
        write=write_english,
        steps=120,
        ask=lambda _folder: {"text": "The ", "max_tokens": 40, "seed": 3},
        check=_goes_on,
        also=_scores_what_it_knows,
    ),
    "representation": Case(
        recipe="representation/vae",
        data="classification",
        write=lambda folder: write_digits(folder, seed=0, size=8, train=200, val=50),
        steps=3000,
        check=_is_reconstruction,
        pictures=frozenset({"reconstructions", "samples", "walk"}),
        also=_walks_between_pictures,
    ),
    "style": Case(
        recipe="style/fast",
        data="domains",
        write=lambda folder: write_two_digits(folder, seed=0, train=12, val=3),
        steps=40,
        ask=lambda folder: held_out(folder, "valA/*.png"),
        params={"keep_colours": True},
        check=_is_repainted,
    ),
    "translation": Case(
        recipe="translation/pix2pix",
        data="pairs",
        write=lambda folder: write_outlines(folder, seed=0, train=48, val=8),
        steps=60,
        ask=lambda folder: held_out(folder, "A/val/*.png"),
        check=_is_filled_outline,
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def folder(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.write(tmp_path_factory.mktemp("data") / "folder")


@pytest.fixture(scope="module")
def bereaved(client: Trainyard, platform: Platform, case: Case, folder: Path) -> Trained:
    """A job whose worker was killed at its first checkpoint."""
    name = case.recipe.replace("/", "-").replace("_", "-")
    dataset = import_folder(client, folder, dataset_id=name, family=case.data)
    every = case.steps // 4
    limits = {
        "max_steps": case.steps,
        "log_every_steps": max(1, case.steps // 20),
        "checkpoint_every_steps": every,
        "evaluate_every_steps": case.steps,
        "sample_every_steps": case.steps,
    }
    config = {"limits": limits, "runtime": {"precision": "fp32"}}
    job = client.create_job(case.recipe, dataset=dataset.name, preset="tiny", config=config, model_id=name)
    told: list[job_pb2.JobEvent] = []
    is_killed = False
    for event in client.watch(job.name):
        told.append(event)
        if event.WhichOneof("payload") == "checkpoint" and not is_killed:
            is_killed = True
            platform.kill_worker()
    return Trained(client.get_job(job.name), told)


def states(events: list[job_pb2.JobEvent]) -> list[int]:
    return [event.state_change.state for event in events if event.WhichOneof("payload") == "state_change"]


@pytest.mark.parametrize("platform", [next(iter(PLATFORMS))], indirect=True)
def test_a_job_of_each_family_ends_in_an_endpoint_though_its_worker_was_killed(
    client: Trainyard, platform: Platform, case: Case, folder: Path, bereaved: Trained, tmp_path: Path
) -> None:
    job, events = bereaved.job, bereaved.events
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job.failure
    assert states(events).count(job_pb2.JOB_STATE_RUNNING) == 2
    steps = [event.step.step for event in events if event.WhichOneof("payload") == "step"]
    assert steps[-1] == case.steps
    pictures = [one for one in client.list_artifacts(job.name) if one.content_type == "image/png"]
    assert {one.file_name for one in pictures} == {
        "curves.png",
        *(f"{name}-{case.steps:010d}.png" for name in case.pictures),
    }
    for one in pictures:
        with Image.open(client.download(one.name, tmp_path).path) as drawn:
            assert min(drawn.size) > 1

    made = client.create_deployment(case.recipe.partition("/")[0], model_version=job.model_version)
    served = client.wait_until_served(made.name, timeout_seconds=platform.patience_seconds)
    assert served.state == deployment_pb2.DEPLOYMENT_STATE_READY, served.message
    asked = case.ask(folder)
    replies = [client.predict(made.name, [asked], params=case.params).predictions[0] for _ in range(2)]

    case.check(MessageToDict(replies[0].result))
    assert replies[0] == replies[1]
    if isinstance(asked, bytes):
        _is_told_alike_however_encoded(client, made.name, asked, case.params)
    case.also(client, made.name, folder)
    client.delete_deployment(made.name)
