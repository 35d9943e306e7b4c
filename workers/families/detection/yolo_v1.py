"""YOLO v1: one grid of boxes in one pass (Redmon et al. 2016, arXiv:1506.02640).

The network's last layer is linear and predicts square roots of sides, as in the paper; batch norm
and the confidence's target are those of darknet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workers.families.base import Placement
from workers.families.detection.blocks import LEAKY_SLOPE, SmallNetwork, conv_block
from workers.families.detection.config import YoloV1Config, YoloV1Model
from workers.families.detection.data import Batch
from workers.families.detection.network import DetectionNetwork
from workers.families.detection.recipe import DetectionRecipe
from workers.families.detection.yolo_loss import BOX_FIELDS, to_boxes, to_cells, yolo_loss

# Table of the paper's Figure 3 as (filters, kernel, stride); None halves the map by max pooling.
_PAPER_CONVOLUTIONS: tuple[tuple[int, int, int] | None, ...] = (
    (64, 7, 2),
    None,
    (192, 3, 1),
    None,
    *((128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1)),
    None,
    *((256, 1, 1), (512, 3, 1)) * 4,
    *((512, 1, 1), (1024, 3, 1)),
    None,
    *((512, 1, 1), (1024, 3, 1)) * 2,
    *((1024, 3, 1), (1024, 3, 2), (1024, 3, 1), (1024, 3, 1)),
)
_PAPER_HIDDEN = 4096


class YoloV1Network(DetectionNetwork):
    """The paper's network or a small one; raw output (N, S, S, B*5+C)."""

    def __init__(self, config: YoloV1Config, num_classes: int) -> None:
        super().__init__()
        model = config.model
        self.grid, self.boxes_per_cell, self.size = model.grid, model.boxes_per_cell, config.data.image_size
        self.num_fields = model.boxes_per_cell * BOX_FIELDS + num_classes
        self.body, self.head = (_paper if model.body == "paper" else _small)(model, self.num_fields)

    def forward(self, images: Tensor) -> Tensor:
        fields: Tensor = self.head(self.body(images)).reshape(-1, self.num_fields, self.grid, self.grid)
        return fields.permute(0, 2, 3, 1).float()

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        num_cells = self.grid * self.grid
        flat = raw.reshape(-1, num_cells, self.num_fields)
        split = self.boxes_per_cell * BOX_FIELDS
        fields = flat[..., :split].reshape(-1, num_cells, self.boxes_per_cell, BOX_FIELDS)
        index = torch.arange(num_cells, device=raw.device)[:, None].expand(num_cells, self.boxes_per_cell)
        boxes = to_boxes(fields[..., :4], index, grid=self.grid) * self.size
        scores = fields[..., 4:].clamp(0, 1) * flat[..., None, split:].clamp(0, 1)
        return boxes.flatten(1, 2), scores.flatten(1, 2)


def _paper(model: YoloV1Model, num_fields: int) -> tuple[nn.Module, nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for layer in _PAPER_CONVOLUTIONS:
        if layer is None:
            layers.append(nn.MaxPool2d(2))
            continue
        filters, kernel, stride = layer
        layers.append(conv_block(channels, filters, kernel=kernel, stride=stride, batch_norm=model.batch_norm))
        channels = filters
    cells = model.grid * model.grid
    head = nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * cells, _PAPER_HIDDEN),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        nn.Dropout(model.dropout),
        nn.Linear(_PAPER_HIDDEN, num_fields * cells),
    )
    return nn.Sequential(*layers), head


def _small(model: YoloV1Model, num_fields: int) -> tuple[nn.Module, nn.Module]:
    channels = model.small.stages[-1][0]
    layers: list[nn.Module] = []
    for width in model.head_widths:
        layers.append(conv_block(channels, width, batch_norm=model.batch_norm))
        channels = width
    head = nn.Sequential(*layers, nn.Dropout2d(model.dropout), nn.Conv2d(channels, num_fields, 1))
    return _LastStage(model), head


class _LastStage(nn.Module):
    def __init__(self, model: YoloV1Model) -> None:
        super().__init__()
        self.stages = SmallNetwork(model.small, batch_norm=model.batch_norm)

    def forward(self, images: Tensor) -> Tensor:
        last: Tensor = self.stages(images)[-1]
        return last


class YoloV1(DetectionRecipe[YoloV1Config]):
    """Trains and serves YOLO v1."""

    metric = "eval/ap50"
    is_batch_divisible = True

    @classmethod
    def build_network(cls, config: YoloV1Config, num_classes: int) -> YoloV1Network:
        return YoloV1Network(config, num_classes)

    def losses_of(self, network: nn.Module, raw: Tensor, batch: Batch, _: Placement) -> dict[str, Tensor]:
        model = self.config.model
        cells = to_cells(batch.boxes, batch.labels, grid=model.grid, size=self.config.data.image_size)
        return yolo_loss(raw, cells, boxes_per_cell=model.boxes_per_cell, weights=self.config.loss)
