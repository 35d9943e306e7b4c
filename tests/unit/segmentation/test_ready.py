from __future__ import annotations

import pytest
from torch import nn

from workers.families.segmentation.config import ReadyModel
from workers.families.segmentation.ready import ReadyNetwork


@pytest.mark.parametrize(("stated", "expected"), [(None, 0.01), (0.25, 0.25)])
def test_batch_statistics_run_at_the_stated_rate_or_torchvision_s(stated: float | None, expected: float) -> None:
    model = ReadyModel(name="lraspp_mobilenet_v3_large", norm_momentum=stated)

    norms = [one for one in ReadyNetwork(model, 4).net.backbone.modules() if isinstance(one, nn.BatchNorm2d)]

    assert norms
    assert {one.momentum for one in norms} == {expected}
