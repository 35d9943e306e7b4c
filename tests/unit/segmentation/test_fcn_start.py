"""FCN-16s begins where FCN-32s ended, FCN-8s where FCN-16s did (Long et al. 2015, section 4.2)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.segmentation.conftest import built
from workers.families.base import Source, SourceUnfit
from workers.families.config import Origin
from workers.families.segmentation.config import FcnConfig
from workers.families.segmentation.fcn import FcnNetwork


def config_of(variant: str) -> FcnConfig:
    tiny = FcnConfig.PRESETS["tiny"]
    return FcnConfig.model_validate(tiny | {"model": {**tiny["model"], "variant": variant}})


def source(variant: str, num_classes: int = 4) -> tuple[FcnNetwork, Source]:
    torch.manual_seed(5)
    network = FcnNetwork(config_of(variant).model, num_classes)
    origin = Origin("projects/p/models/m/versions/1", "model", "segmentation/fcn", {})
    return network, Source(origin, network.state_dict())


@pytest.mark.parametrize(("coarse", "fine"), [("32s", "16s"), ("16s", "8s")])
def test_a_finer_variant_begins_with_the_coarser_one_s_scores(scenes: Path, coarse: str, fine: str) -> None:
    recipe, state = built(scenes, config_of(fine))
    network, weights = source(coarse)

    recipe.load_source(state, weights)

    images = torch.rand(1, 3, 320, 320)
    before, after = network.eval()(images), state.modules["network"].eval()(images)
    # Two steps of linear up-sampling are not one of their product at the border, but nearly so within.
    inside = (..., slice(64, -64), slice(64, -64))
    assert torch.corrcoef(torch.stack([before[inside].flatten(), after[inside].flatten()]))[0, 1] > 0.98


def test_the_same_variant_begins_with_the_same_scores(scenes: Path) -> None:
    recipe, state = built(scenes, config_of("8s"))
    network, weights = source("8s")

    recipe.load_source(state, weights)

    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(network.eval()(images), state.modules["network"].eval()(images))


def test_other_classes_get_new_scores_over_the_same_body(scenes: Path) -> None:
    recipe, state = built(scenes, config_of("8s"))
    network, weights = source("8s", num_classes=9)

    recipe.load_source(state, weights)

    found = state.modules["network"].state_dict()
    assert torch.equal(found["stages.0.0.weight"], network.state_dict()["stages.0.0.weight"])
    assert found["score.weight"].shape[0] == recipe.num_classes


def test_a_coarser_variant_cannot_begin_with_a_finer_one(scenes: Path) -> None:
    recipe, state = built(scenes, config_of("32s"))
    _, weights = source("8s")

    with pytest.raises(SourceUnfit, match=r"is unknown here: doubles\.0\.weight"):
        recipe.load_source(state, weights)
