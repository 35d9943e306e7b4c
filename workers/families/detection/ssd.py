"""SSD: default boxes on several feature maps (Liu et al. 2016, arXiv:1512.02325).

Body and head are torchvision's where they are the paper's; default boxes, assignment and loss are
our own, batched over images of one size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import vgg16
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG, SSDHead
from torchvision.ops import box_iou

from workers.families.base import Placement
from workers.families.detection import anchors, boxes
from workers.families.detection.assign import assign_best, assign_bipartite
from workers.families.detection.blocks import SmallNetwork
from workers.families.detection.config import SsdConfig, SsdLoss
from workers.families.detection.data import Batch
from workers.families.detection.network import DetectionNetwork
from workers.families.detection.recipe import DetectionRecipe
from workers.families.supervised import in_eval_mode

# Default boxes are kept as whole numbers, which a cast of the network to bf16 leaves alone.
_UNITS_OF_PIXEL = 4096

_ASSIGN = {"bipartite": assign_bipartite, "best": assign_best}


class SsdNetwork(DetectionNetwork):
    """Raw output: class logits (N, A, 1+K), background first, and offsets (N, A, 4)."""

    _places: Tensor

    def __init__(self, config: SsdConfig, num_classes: int) -> None:
        super().__init__()
        model, size = config.model, config.data.image_size
        self.body = _VggBody() if model.body == "vgg16" else _SmallBody(config)
        # On the device `meta` the same would import all of torch's symbolic shapes.
        with in_eval_mode(self.body), torch.no_grad():
            features = self.body(torch.zeros(1, 3, size, size))
        channels = [feature.shape[1] for feature in features]
        self.head = SSDHead(channels, list(config.num_default_boxes()), num_classes + 1)
        grids = [(feature.shape[2], feature.shape[3]) for feature in features]
        places = anchors.default_boxes(grids, model.sizes, model.ratios, size_semantics=model.size_semantics)
        self.register_buffer("_places", (places * size * _UNITS_OF_PIXEL).round().int(), persistent=False)

    @property
    def anchors(self) -> Tensor:
        """Return the default boxes (A, 4) in pixels of the square, in fp32 whatever the weights are."""
        return self._places.float() / _UNITS_OF_PIXEL

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        out = self.head(self.body(images))
        return out["cls_logits"].float(), out["bbox_regression"].float()

    def decode(self, raw: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        logits, offsets = raw
        return boxes.decode(offsets, self.anchors), logits.softmax(-1)[..., 1:]


class _VggBody(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = SSDFeatureExtractorVGG(vgg16(weights=None, progress=False).features, highres=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.features(images).values())


class _SmallBody(nn.Module):
    def __init__(self, config: SsdConfig) -> None:
        super().__init__()
        self.stages = SmallNetwork(config.model.small)
        self.num_levels = config.model.num_small_levels

    def forward(self, images: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.stages(images)[-self.num_levels :]
        return levels


def assign_targets(places: Tensor, truth: Tensor, labels: Tensor, *, config: SsdLoss) -> tuple[Tensor, Tensor]:
    """Return for each anchor its label (N, A), 0 for background, and its truth box (N, A, 4)."""
    valid = labels > 0
    overlap = box_iou(truth, places.expand(len(truth), -1, -1))
    assigned = _ASSIGN[config.assign](overlap, valid, threshold=config.iou_threshold)
    index = assigned.clamp(min=0)
    label = labels.gather(1, index) * (assigned >= 0)
    return label, truth.gather(1, index[..., None].expand(-1, -1, 4))


def ssd_loss(
    raw: tuple[Tensor, Tensor],
    label: Tensor,
    offsets: Tensor,
    *,
    config: SsdLoss,
    mean_count: Callable[[Tensor], Tensor] = lambda count: count,
) -> dict[str, Tensor]:
    """Return class and box parts, both over the number of positive anchors of the batch, as `mean_count` gives it.

    Of the negatives only the hardest count, `negative_ratio` for each positive of the same image.
    `offsets` (N, A, 4) matter where `label` is above zero.
    """
    logits, predicted = raw
    is_positive = label > 0
    num_positive = is_positive.sum(1)
    class_loss = functional.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view_as(label)
    hardest = class_loss.masked_fill(is_positive, 0).sort(dim=1, descending=True).values
    rank = torch.arange(label.shape[1], device=label.device)
    is_counted = rank < (config.negative_ratio * num_positive)[:, None]
    classes = (class_loss * is_positive).sum() + (hardest * is_counted).sum()
    distance = functional.smooth_l1_loss(predicted, offsets, reduction="none").sum(-1)
    located = torch.where(is_positive, distance, 0).sum()
    count = mean_count(num_positive.sum())
    # Without positives both sums are zero, and so are the losses.
    count = torch.where(count > 0, count, 1)
    return {"class": classes / count, "box": config.box_weight * located / count}


class Ssd(DetectionRecipe[SsdConfig]):
    """Trains and serves SSD."""

    metric = "eval/ap50"

    @classmethod
    def build_network(cls, config: SsdConfig, num_classes: int) -> SsdNetwork:
        return SsdNetwork(config, num_classes)

    def losses_of(
        self, network: nn.Module, raw: tuple[Tensor, Tensor], batch: Batch, placement: Placement
    ) -> dict[str, Tensor]:
        assert isinstance(network, SsdNetwork)
        with torch.no_grad():
            label, truth = assign_targets(network.anchors, batch.boxes, batch.labels, config=self.config.loss)
            # A background anchor gets itself as truth: its offsets are zero instead of the log of nothing.
            truth = torch.where((label > 0)[..., None], truth, network.anchors)
            offsets = boxes.encode(truth, network.anchors)
        return ssd_loss(raw, label, offsets, config=self.config.loss, mean_count=placement.mean_count)
