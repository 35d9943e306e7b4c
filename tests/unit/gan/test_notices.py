"""What a GAN says before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.training import Outcome, attempt
from workers.engine.frames import FrameKind
from workers.families.catalog import CATALOG
from workers.families.gan.config import DcganConfig
from workers.families.records import RecordSet
from workers.families.shaped import has_colour


def pictures(directory: Path, *, tint: tuple[int, int, int], spot: int = 8, suffix: str = "png") -> Path:
    """Import grey noise with a tinted square."""
    rng, (folder, out) = np.random.default_rng(0), (directory / name for name in ("folder", "canonical"))
    for split, count in (("train", 8), ("val", 4)):
        (folder / split).mkdir(parents=True)
        for n in range(count):
            pixels = np.repeat(rng.integers(0, 200, (8, 8, 1), dtype=np.uint8), 3, axis=2)
            pixels[:spot, :spot] = pixels[:spot, :spot] // 2 + np.array(tint, np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{n}.{suffix}")
    out.mkdir()
    import_folder(folder, out, source_format=None, limits=ImportLimits(), family="images")
    return out


def config(channels: int) -> dict[str, Any]:
    sections: dict[str, Any] = DcganConfig.preset("tiny").model_dump(mode="json")
    sections["data"] |= {"image_size": [8, 8], "channels": channels, "batch_size": 4}
    sections["model"] |= {"latent_size": 4, "generator_channels": 4, "discriminator_channels": 4}
    sections["eval"] |= {"feature_epochs": 1, "num_images": 8, "num_samples": 4}
    cadences = ("checkpoint_every_steps", "evaluate_every_steps", "sample_every_steps")
    sections["limits"] |= {"max_steps": 2, **dict.fromkeys(cadences, 1)}
    return sections


def notices(outcome: Outcome) -> list[str]:
    assert outcome.error is None
    return [frame["text"] for frame in outcome.log.of(FrameKind.LOG) if "data.channels=3" in frame["text"]]


def test_colours_trained_in_grey_are_told_once(tmp_path: Path) -> None:
    coloured, grey = (pictures(tmp_path / str(red), tint=(red, 0, 0)) for red in (120, 0))

    def train(channels: int, dataset_dir: Path = coloured, **options: Any) -> Outcome:
        where = {"recipe": "gan/dcgan", "catalog": CATALOG, "dataset_dir": dataset_dir}
        return attempt(tmp_path, config(channels), **where, **options)

    first = train(1, stop_at=1)

    assert len(notices(first)) == 1
    assert notices(train(1, resume_dir=first.checkpoint_dir(1))) == []
    assert notices(train(3)) == []
    assert notices(train(1, grey)) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"tint": (0, 0, 0)}, False, id="grey"),
        pytest.param({"tint": (40, 40, 48), "suffix": "jpg"}, False, id="traces of colour are none"),
        pytest.param({"tint": (120, 0, 0), "spot": 2}, True, id="a spot is enough"),
    ],
)
def test_colour_is_seen(tmp_path: Path, options: dict[str, Any], expected: bool) -> None:
    records = RecordSet(pictures(tmp_path, **options), "train", families=("images",))

    assert has_colour(records) is expected
