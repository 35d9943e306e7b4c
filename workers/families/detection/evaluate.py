"""Average precision on a held-out split, by the COCO rules of faster-coco-eval.

Scores the same post-processing that serves, with a lower threshold so that the whole curve counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from workers.families.detection.config import Eval
from workers.families.detection.data import Record, SquareImages
from workers.families.detection.postprocess import Detections, Thresholds, select
from workers.families.images import normalise

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]

_NAMES = {
    "map": "eval/ap",
    "map_50": "eval/ap50",
    "map_75": "eval/ap75",
    "map_small": "eval/ap_small",
    "map_medium": "eval/ap_medium",
    "map_large": "eval/ap_large",
    "mar_100": "eval/ar",
}


def detect(predict: Predict, images: SquareImages, *, batch_size: int, thresholds: Thresholds) -> list[Detections]:
    """Return the detections of every image in order; `predict` takes normalised squares on the host."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            rows = np.arange(start, min(start + batch_size, len(images)))
            boxes, scores = predict(normalise(images.gather(rows)))
            boxes, scores = boxes.float().cpu(), scores.float().cpu()
            found += [select(boxes[i], scores[i], images.fit_of(start + i), thresholds) for i in range(len(rows))]
    return found


def evaluate(predict: Predict, images: SquareImages, *, num_classes: int, config: Eval) -> dict[str, float]:
    """Return `eval/ap` and its kin; a figure the split cannot give, such as large objects, is left out."""
    thresholds = Thresholds(
        score_threshold=config.score_threshold, nms_iou=config.nms_iou, max_detections=config.max_detections
    )
    found = detect(predict, images, batch_size=config.batch_size, thresholds=thresholds)
    figures = coco_figures(found, images.records, max_detections=config.max_detections)
    if config.voc_11_point:
        figures["eval/voc_ap11"] = voc_11_point(found, images.records, num_classes=num_classes)
    return figures


def coco_figures(found: Sequence[Detections], records: Sequence[Record], *, max_detections: int) -> dict[str, float]:
    """Return AP over IoU 0.5 to 0.95, at 0.5 and 0.75, by object size, and average recall."""
    metric = MeanAveragePrecision(
        backend="faster_coco_eval", max_detection_thresholds=sorted({1, 10, max_detections})[-3:]
    )
    metric.warn_on_many_detections = False
    metric.update(
        [{"boxes": one.boxes, "labels": one.labels, "scores": one.scores} for one in found],
        [{"boxes": r.boxes, "labels": r.labels, "iscrowd": r.is_crowd.long(), "area": r.area} for r in records],
    )
    names = {**_NAMES, f"mar_{max_detections}": "eval/ar"}
    figures = {names[key]: float(value) for key, value in metric.compute().items() if key in names}
    # The library says -1 where no truth is of that size.
    return {name: value for name, value in figures.items() if value >= 0}


def voc_11_point(found: Sequence[Detections], records: Sequence[Record], *, num_classes: int) -> float:
    """Return the mean over classes of the precision at recalls 0, 0.1 .. 1, at IoU 0.5 (VOC 2007).

    Crowds, which stand for VOC's difficult objects, are neither wanted nor counted as errors.
    """
    precisions = [_class_ap11(found, records, label) for label in range(1, num_classes + 1)]
    present = [value for value in precisions if value is not None]
    return float(np.mean(present)) if present else 0.0


def _class_ap11(found: Sequence[Detections], records: Sequence[Record], label: int) -> float | None:
    num_truths, scores, hits = 0, [], []
    for one, record in zip(found, records, strict=True):
        of_class = record.labels == label
        truths, is_crowd = record.boxes[of_class], record.is_crowd[of_class]
        num_truths += int((~is_crowd).sum())
        mine = one.labels == label
        for hit, score in zip(_hits(one.boxes[mine], truths, is_crowd), one.scores[mine].tolist(), strict=True):
            if hit is not None:
                hits.append(hit)
                scores.append(score)
    if not num_truths:
        return None
    order = np.argsort(-np.asarray(scores), kind="stable")
    is_hit = np.asarray(hits, dtype=np.float64)[order]
    recall = np.cumsum(is_hit) / num_truths
    precision = np.cumsum(is_hit) / np.arange(1, len(is_hit) + 1)
    return float(np.mean([precision[recall >= level - 1e-9].max(initial=0.0) for level in np.linspace(0, 1, 11)]))


def _hits(boxes: Tensor, truths: Tensor, is_crowd: Tensor) -> list[bool | None]:
    """Say of each box, best first, whether it finds a truth not yet found; None where it falls on a crowd."""
    if not len(truths):
        return [False] * len(boxes)
    overlap, best = box_iou(boxes, truths).max(1)
    taken: set[int] = set()
    hits: list[bool | None] = []
    for iou, truth in zip(overlap.tolist(), best.tolist(), strict=True):
        if iou >= 0.5 and bool(is_crowd[truth]):
            hits.append(None)
            continue
        hits.append(iou >= 0.5 and truth not in taken)
        if iou >= 0.5:
            taken.add(truth)
    return hits
