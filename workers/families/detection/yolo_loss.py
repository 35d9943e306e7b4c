"""The sum-squared loss of YOLO v1, from truths as boxes; no grid of targets is built.

Shape letters: N images, M truths of an image (padded), S grid side, B boxes of a cell, C classes.
A cell's outputs are B times (x, y, sqrt w, sqrt h, confidence), then C class probabilities; x and y
count in cells from the cell's corner, w and h in images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, box_iou

from workers.families.detection.config import YoloV1Loss

BOX_FIELDS = 5


@dataclass(frozen=True, slots=True)
class Cells:
    """Truths as cells see them; `box` (N, M, 4) is x, y in the cell, and sqrt w, sqrt h."""

    index: Tensor
    box: Tensor
    label: Tensor


def to_cells(boxes: Tensor, labels: Tensor, *, grid: int, size: int) -> Cells:
    """Find the cell of each truth's centre; a cell answers for the first truth in it only.

    A truth that finds its cell taken gets label 0.
    """
    centre, sides = (box_convert(boxes, "xyxy", "cxcywh") / size).split(2, dim=-1)
    place = (centre * grid).floor().clamp(0, grid - 1)
    index = (place[..., 1] * grid + place[..., 0]).long()
    same = (index[:, :, None] == index[:, None, :]) & (labels > 0)[:, None, :]
    is_taken = same.tril(diagonal=-1).any(2)
    return Cells(
        index=index,
        box=torch.cat([centre * grid - place, sides.clamp(min=0).sqrt()], dim=-1),
        label=labels * ~is_taken,
    )


def to_boxes(predicted: Tensor, index: Tensor, *, grid: int) -> Tensor:
    """Turn predicted (..., 4) of cells `index` (...) into xyxy fractions of the image."""
    corner = torch.stack([index % grid, index // grid], dim=-1)
    centre = (predicted[..., :2] + corner) / grid
    half = predicted[..., 2:].square() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def yolo_loss(raw: Tensor, cells: Cells, *, boxes_per_cell: int, weights: YoloV1Loss) -> dict[str, Tensor]:
    """Return the parts of the loss, each summed over an image and averaged over images.

    `raw` is fp32 (N, S, S, B*5+C). The box responsible for a truth is the cell's box with the
    highest IoU, and where every IoU is zero the one with the smallest squared distance.
    """
    num_images, grid = raw.shape[:2]
    split = boxes_per_cell * BOX_FIELDS
    flat = raw.flatten(1, 2)
    of_truth = flat.gather(1, cells.index[..., None].expand(-1, -1, flat.shape[2]))
    predicted = _as_boxes(of_truth[..., :split], boxes_per_cell)
    has_truth = (cells.label > 0).float()
    chosen, iou = _responsible(predicted.detach()[..., :4], cells, grid)
    picked = predicted.gather(2, chosen[..., None, None].expand(-1, -1, 1, BOX_FIELDS)).squeeze(2)
    confidence_target = iou if weights.rescore else torch.ones_like(iou)
    classes = of_truth[..., split:]
    class_target = functional.one_hot((cells.label - 1).clamp(min=0), classes.shape[2])
    is_responsible = _mark(cells.index * boxes_per_cell + chosen, has_truth > 0, grid * grid * boxes_per_cell)
    confidence = _as_boxes(flat[..., :split], boxes_per_cell)[..., 4].flatten(1)
    parts = {
        "box": weights.coordinates * ((picked[..., :4] - cells.box).square().sum(-1) * has_truth).sum(),
        "object": ((picked[..., 4] - confidence_target).square() * has_truth).sum(),
        "no_object": weights.no_object * (confidence.square() * ~is_responsible).sum(),
        "class": weights.classes * ((classes - class_target).square().sum(-1) * has_truth).sum(),
    }
    return {name: part / num_images for name, part in parts.items()}


def _as_boxes(fields: Tensor, boxes_per_cell: int) -> Tensor:
    return fields.reshape(*fields.shape[:-1], boxes_per_cell, BOX_FIELDS)


def _responsible(predicted: Tensor, cells: Cells, grid: int) -> tuple[Tensor, Tensor]:
    """Return which box (N, M) answers for each truth, and its IoU with it."""
    truth = to_boxes(cells.box, cells.index, grid=grid)
    boxes = to_boxes(predicted, cells.index[..., None].expand(predicted.shape[:-1]), grid=grid)
    # Padding has no area, and where a predicted box has none either the ratio is 0 / 0.
    iou = box_iou(truth[..., None, :], boxes).squeeze(-2).nan_to_num()
    centre, sides = box_convert(boxes - truth[..., None, :], "xyxy", "cxcywh").split(2, dim=-1)
    distance = centre.square().sum(-1) + sides.square().sum(-1)
    best = torch.where(iou.amax(-1) > 0, iou.argmax(-1), distance.argmin(-1))
    return best, iou.gather(-1, best[..., None]).squeeze(-1)


def _mark(index: Tensor, is_real: Tensor, count: int) -> Tensor:
    # Padding marks one place past the end; real truths have a cell each, so no place is written twice.
    places = torch.where(is_real, index, count)
    marks = torch.zeros((len(index), count + 1), dtype=torch.bool, device=index.device)
    return marks.scatter_(1, places, True)[:, :count]
