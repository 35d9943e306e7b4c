"""Pictures as squares: pairs stay pairs under cuts and mirrors, domains keep orders of their own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from services.core.errors import DatasetInvalid
from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.datasets import picture, write_files
from tests.builders.domains import write_two_digits
from tests.builders.pairs import write_outlines
from workers.engine.data import step_generator
from workers.families.records import RecordSet
from workers.families.translation.config import Data
from workers.families.translation.data import (
    PAIRS,
    DomainBatches,
    PairBatches,
    Pairs,
    open_domains,
    to_square,
    vary,
)


def stored(folder: Path, target: Path, family: str) -> Path:
    target.mkdir()
    import_folder(folder, target, source_format=None, family=family, limits=ImportLimits())
    return target


@pytest.fixture(scope="module")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pairs")
    return stored(write_outlines(directory / "folder", train=6, val=2), directory / "canonical", "pairs")


@pytest.fixture(scope="module")
def domains_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("domains")
    return stored(write_two_digits(directory / "folder", train=5, val=3), directory / "canonical", "domains")


def ramp(side: int) -> Tensor:
    """Return two pictures whose pixels all differ, (2, 1, 3, side, side), int64."""
    return torch.arange(2 * 3 * side * side).reshape(2, 1, 3, side, side)


def test_any_shape_becomes_a_square_of_the_whole_picture() -> None:
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    image[:, :, 20:] = 200

    square = to_square(image, 16)

    assert square.shape == (3, 16, 16)
    assert int(square[:, :, :7].max()) == 0
    assert int(square[:, :, 9:].min()) == 200


def test_a_picture_and_its_target_are_cut_and_mirrored_alike() -> None:
    pairs = ramp(20).expand(-1, 2, -1, -1, -1).clone()
    data = Data(image_size=16, load_size=20, flip=0.5)
    varied = [vary(pairs, data, step_generator(0, step)) for step in range(20)]

    assert all(torch.equal(one[:, 0], one[:, 1]) for one in varied)
    firsts = {int(one[0, 0, 0, 0, 0]) for one in varied}
    assert len(firsts) > 5


def test_a_cut_lies_in_the_picture_and_reaches_every_place() -> None:
    data = Data(image_size=16, load_size=18, flip=0.0)
    corners = {
        tuple(divmod(int(vary(ramp(18), data, step_generator(0, step))[0, 0, 0, 0, 0]), 18)) for step in range(200)
    }

    assert corners == {(row, column) for row in range(3) for column in range(3)}


def test_mirrors_turn_left_to_right_as_often_as_asked_for() -> None:
    images = torch.arange(2000 * 16 * 16).reshape(2000, 1, 16, 16)

    found = vary(images, Data(image_size=16, load_size=16, flip=0.25), step_generator(0, 0))

    is_turned = (found != images).flatten(1).any(1)
    assert 0.2 < float(is_turned.float().mean()) < 0.3
    assert torch.equal(found[is_turned], images[is_turned].flip(3))


def test_what_a_batch_begins_with_are_inputs_and_what_it_asks_for_are_their_targets(pairs_dir: Path) -> None:
    pairs = Pairs(RecordSet(pairs_dir, "train", families=PAIRS), side=16, cache_mib=1)
    stored = [(one.numpy().tobytes(), other.numpy().tobytes()) for one, other in pairs.gather(np.arange(6))]

    batch = PairBatches(pairs, Data(image_size=16, load_size=16, batch_size=6, flip=0.0), seed=0).batch(0)

    shown = [(one.numpy().tobytes(), other.numpy().tobytes()) for one, other in zip(batch.a, batch.b, strict=True)]
    assert sorted(shown) == sorted(stored)


def test_a_batch_is_that_of_its_step_alone(pairs_dir: Path) -> None:
    data = Data(image_size=16, load_size=20, batch_size=4)

    def batches() -> PairBatches:
        records = RecordSet(pairs_dir, "train", families=PAIRS)
        return PairBatches(Pairs(records, side=20, cache_mib=1), data, seed=3)

    one, other = batches(), batches()
    one.batch(0)

    assert torch.equal(one.batch(5).a, other.batch(5).a)
    assert torch.equal(one.batch(5).b, other.batch(5).b)
    assert one.batch(5).a.shape == (4, 3, 16, 16)


def test_domains_are_drawn_in_orders_of_their_own(domains_dir: Path) -> None:
    domains = open_domains(domains_dir, "train", side=16, cache_mib=2)
    source = DomainBatches(domains, Data(image_size=16, load_size=16, batch_size=5, flip=0.0), seed=0)
    orders = [order.indices(0) for order in source._orders]

    batch = source.batch(0)

    assert orders[0] != orders[1]
    # Every picture once an epoch; B is bright, A is dark.
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(5))
    assert float(batch.b.float().mean()) > float(batch.a.float().mean())


def test_a_split_with_one_domain_is_refused_by_its_name(domains_dir: Path, tmp_path: Path) -> None:
    for file in domains_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    index = tmp_path / "annotations.jsonl"
    lines = [line for line in index.read_text().splitlines() if '"label": 1' not in line and '"label":1' not in line]
    index.write_text("\n".join(lines) + "\n")

    with pytest.raises(DatasetInvalid, match="'train' has no picture of 'B'"):
        open_domains(tmp_path, "train", side=16, cache_mib=1)


@pytest.mark.parametrize("counts", [(1, 1), (1, 4)])
def test_domains_of_which_nothing_is_held_out_are_refused_with_a_remedy(
    counts: tuple[int, int], tmp_path: Path
) -> None:
    files = {f"train{name}/{n}.jpg": picture(10 * n + len(name)) for name, count in zip("AB", counts, strict=True)
             for n in range(count)}  # fmt: skip
    directory = stored(write_files(tmp_path / "folder", files), tmp_path / "canonical", "domains")

    with pytest.raises(DatasetInvalid, match=r"'val'.*; import two or more of both domains"):
        open_domains(directory, "val", side=16, cache_mib=1)


def test_a_golden_input_of_a_file_of_two_halves_is_its_left_half(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        for number in range(2):
            whole = Image.new("RGB", (32, 16), (10 * number + 5, 0, 0))
            whole.paste((0, 200, 10 * number), (16, 0, 32, 16))
            whole.save(folder / split / f"{number}{split}.png")
    directory = stored(folder, tmp_path / "canonical", "pairs")
    pairs = Pairs(RecordSet(directory, "val", families=PAIRS), side=16, cache_mib=1)

    with Image.open(io.BytesIO(pairs.read(0))) as sent, Image.open(io.BytesIO(pairs.read_target(0))) as target:
        assert sent.size == target.size == (16, 16)
        assert sent.convert("RGB").getpixel((15, 0))[1] == 0  # type: ignore[index]
        assert target.convert("RGB").getpixel((0, 0))[1] == 200  # type: ignore[index]
