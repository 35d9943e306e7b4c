from __future__ import annotations

import pytest
import torch
from torch import nn

from workers.families.records import IGNORED_PIXEL
from workers.families.segmentation.config import ReadyConfig, ReadyModel
from workers.families.segmentation.ready import Ready, ReadyNetwork
from workers.families.segmentation.recipe import pixel_loss


@pytest.mark.parametrize(("stated", "expected"), [(None, 0.01), (0.25, 0.25)])
def test_batch_statistics_run_at_the_stated_rate_or_torchvision_s(stated: float | None, expected: float) -> None:
    model = ReadyModel(name="lraspp_mobilenet_v3_large", norm_momentum=stated)

    norms = [one for one in ReadyNetwork(model, 4).net.backbone.modules() if isinstance(one, nn.BatchNorm2d)]

    assert norms
    assert {one.momentum for one in norms} == {expected}


def test_what_the_losses_call_is_what_is_compiled() -> None:
    network = ReadyNetwork(ReadyModel(name="lraspp_mobilenet_v3_large"), 4)
    called: list[nn.Module] = []
    Ready.compiled_part(None, network).register_forward_hook(  # type: ignore[arg-type]
        lambda module, _i, _o: called.append(module)
    )

    network.scores(torch.rand(2, 3, 32, 32))
    network(torch.rand(2, 3, 32, 32))

    assert len(called) == 2


def test_a_batch_that_deeplab_cannot_normalise_is_refused_when_the_job_is_created() -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size must be at least 2"):
        ReadyConfig.model_validate({"data": {"batch_size": 1}})
    ReadyConfig.model_validate({"data": {"batch_size": 1}, "model": {"name": "lraspp_mobilenet_v3_large"}})


def test_the_pixel_loss_is_the_mean_over_labelled_pixels() -> None:
    scores, masks = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8)
    masks[:, 2:] = IGNORED_PIXEL

    labelled = nn.functional.cross_entropy(scores[:, :, :2], masks[:, :2].long())

    torch.testing.assert_close(pixel_loss(scores, masks), labelled)
    assert pixel_loss(scores, torch.full_like(masks, IGNORED_PIXEL)) == 0
