from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.core.errors import DatasetInvalid
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders import datasets as build
from tests.builders import family_datasets as family
from tests.builders.faces import write_lfw, write_people
from tests.builders.training import Outcome, attempt
from workers.engine.frames import FrameKind
from workers.families.base import Placement
from workers.families.catalog import CATALOG
from workers.families.face.align import align
from workers.families.face.config import SiameseConfig, TripletConfig
from workers.families.face.network import MILLION, ServedNetwork
from workers.families.face.siamese import Siamese
from workers.families.face.triplet import Triplet
from workers.families.images import decode, normalise
from workers.families.records import RecordSet

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)


def imported(folder: Path) -> Path:
    canonical = folder.parent / f"{folder.name}-canonical"
    canonical.mkdir()
    import_folder(folder, canonical, source_format=None, limits=ImportLimits(), family="face")
    return canonical


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(write_people(tmp_path_factory.mktemp("faces") / "people", train=(6, 4), val=(6, 4)))


def triplet(dataset_dir: Path, **sections: Any) -> Triplet:
    config = TripletConfig.preset("tiny").model_dump()
    for name, values in sections.items():
        config[name] |= values
    return Triplet(TripletConfig.model_validate(config), dataset_dir)


def tiny_sections() -> dict[str, Any]:
    sections: dict[str, Any] = TripletConfig.preset("tiny").model_dump(mode="json")
    sections["data"] |= {"batch_size": 4}
    cadences = ("checkpoint_every_steps", "evaluate_every_steps", "sample_every_steps")
    sections["limits"] |= {"max_steps": 2, **dict.fromkeys(cadences, 1)}
    return sections


def test_pairs_of_the_dataset_are_used_where_it_has_some(tmp_path: Path) -> None:
    recipe = triplet(imported(write_lfw(tmp_path / "lfw", train=(2, 2), val=(20, 3), pairs=2)))

    listed = json.loads((recipe.dataset_dir / "pairs.json").read_text())["folds"]
    members = [record.member for record in recipe._held_out.records.records]
    assert [[[members[a], members[b], int(same)] for a, b, same in fold] for fold in recipe._folds] == listed


def test_figures_of_few_people_say_so_once(tmp_path: Path) -> None:
    few = imported(write_people(tmp_path / "few", train=(4, 4), val=(2, 3)))
    sections = tiny_sections()

    def heard(**options: Any) -> tuple[Outcome, list[str]]:
        outcome = attempt(tmp_path, sections, recipe="face/triplet", catalog=CATALOG, dataset_dir=few, **options)
        assert outcome.error is None
        warned = [frame["text"] for frame in outcome.log.of(FrameKind.LOG) if frame["level"] == "warning"]
        return outcome, [text for text in warned if "held out" in text]

    first, told = heard(stop_at=1)

    text = "only 2 people are held out: the figures rest on them and on 12 pairs of their pictures, 6 of one person"
    assert told == [f"{text}; import the data with 10 people or more in val before you trust them"]
    assert heard(resume_dir=first.checkpoint_dir(1))[1] == []


@pytest.mark.parametrize(
    ("held_out", "told"), [pytest.param(9, 1, id="nine people are few"), pytest.param(10, 0, id="ten are enough")]
)
def test_few_people_are_less_than_ten(tmp_path: Path, held_out: int, told: int) -> None:
    recipe = triplet(imported(write_people(tmp_path / "people", train=(2, 2), val=(held_out, 2))))

    assert len(recipe.notices()) == told


def test_the_served_threshold_is_that_of_the_evaluation_or_made_anew(people: Path) -> None:
    recipe = triplet(people)
    state = recipe.build(CPU)
    evaluated = recipe.evaluate(state, CPU)["eval/threshold"]

    for again in (recipe, triplet(people)):
        served = again.serving_module(state).eval()
        assert isinstance(served, ServedNetwork)
        _, threshold = served(normalise(recipe._held_out.gather(np.arange(2))))
        assert threshold[0, 0].item() / MILLION == pytest.approx(evaluated, abs=1e-6)


def test_a_threshold_is_not_kept_for_weights_that_came_after(people: Path) -> None:
    recipe = triplet(people, data={"batch_size": 8}, optim={"lr": 0.1}, schedule={"warmup_steps": 0})
    state, source = recipe.build(CPU), recipe.train_batches()
    before = recipe.evaluate(state, CPU)["eval/threshold"]
    for step in range(3):
        recipe.train_step(state, recipe.to_device(source.batch(step), CPU), CPU)
        state.step += 1

    served = recipe.serving_module(state)
    after = recipe.evaluate(state, CPU)["eval/threshold"]

    assert isinstance(served, ServedNetwork)
    assert served.threshold_millionths.item() / MILLION == pytest.approx(after, abs=1e-6)
    assert after != before


def test_arcface_trains_one_direction_a_person_of_train(people: Path) -> None:
    recipe = triplet(people, loss={"name": "arcface"}, data={"batch_size": 8})
    state = recipe.build(CPU)
    batch = recipe.to_device(recipe.train_batches().batch(0), CPU)

    recipe.train_step(state, batch, CPU)

    head = dict(state.modules["network"].named_parameters())["head.directions"]
    assert head.shape == (6, 64)
    assert head.grad is not None
    assert bool(head.grad.any(1).all())


@pytest.mark.parametrize("loss", ["bce", "contrastive"])
def test_a_siamese_update_is_the_same_whichever_face_is_first(people: Path, loss: str) -> None:
    config = SiameseConfig.preset("tiny").model_dump()
    config["loss"]["name"] = loss
    config["augment"] = {"flip": 0.0, "turn_degrees": 0.0, "brightness": 1.0, "erasing": 0.0}
    recipe = Siamese(SiameseConfig.model_validate(config), people)
    batch = recipe.to_device(recipe.train_batches().batch(0), CPU)
    network = recipe.new_network().eval()

    swapped = type(batch)(batch.images.flip(1), batch.is_same, None)

    one, other = (recipe.losses(network, each, CPU)["pairs"] for each in (batch, swapped))
    torch.testing.assert_close(one, other)
    assert batch.is_same.tolist() == [place % 2 == 0 for place in range(32)]


def test_faces_with_landmarks_are_aligned_by_them(tmp_path: Path) -> None:
    files = {**family.celeba(count=8), **family.celeba_landmarks(count=8)}
    dataset_dir = imported(build.write_files(tmp_path / "in", files))
    recipe = triplet(dataset_dir, data={"batch_size": 4})

    records = RecordSet(dataset_dir, "train", families=("face",))

    for index in range(len(records)):
        landmarks = records.records[index].landmarks
        assert landmarks is not None
        expected = align(decode(records.read(index)), landmarks, 32)
        assert torch.equal(recipe.train_faces.gather(np.asarray([index]))[0], expected)


def test_landmarks_that_fix_no_face_name_the_image(tmp_path: Path) -> None:
    files = {**family.celeba(count=8), **family.celeba_landmarks(count=8)}
    files["list_landmarks_align_celeba.txt"] = b"\n".join(b"%06d.jpg" % n + b" 7" * 10 for n in range(1, 9))
    recipe = triplet(imported(build.write_files(tmp_path / "in", files)), data={"batch_size": 4})

    with pytest.raises(DatasetInvalid, match=r"train/[0-9a-f]+\.jpg: the landmarks do not lie like those of a face"):
        recipe.train_batches().batch(0)


def test_a_picture_of_matches_has_a_row_for_each_query(people: Path) -> None:
    recipe = triplet(people)

    (picture,) = recipe.sample(recipe.build(CPU), CPU)

    assert picture.name == "matches"
    assert picture.png.startswith(b"\x89PNG")
    # Eight rows of a query, a gap, and six matches.
    width, height = (int.from_bytes(picture.png[start : start + 4], "big") for start in (16, 20))
    assert (width, height) == (7 * 96 + 12, 8 * 116 + 7 * 6)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param({"batch_size": 9, "shots": 2}, "multiple of data.shots 2", id="not a multiple"),
        pytest.param({"batch_size": 4, "shots": 4}, "twice it or more", id="one person only"),
    ],
)
def test_a_batch_that_holds_no_triplet_is_refused(data: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TripletConfig.model_validate({"data": data})
