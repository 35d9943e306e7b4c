"""Average precision on a held-out split, by the COCO rules of faster-coco-eval.

Scores the same post-processing that serves, with a lower threshold so that the whole curve counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from workers.families.detection.config import Eval
from workers.families.detection.data import Record, SquareImages
from workers.families.detection.postprocess import Detections, Thresholds, select
from workers.families.images import normalise

Predict = Callable[[Tensor], tuple[Tensor, Tensor]]

_NAMES = {
    "AP_all": "eval/ap",
    "AP_50": "eval/ap50",
    "AP_75": "eval/ap75",
    "AP_small": "eval/ap_small",
    "AP_medium": "eval/ap_medium",
    "AP_large": "eval/ap_large",
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
    truth = COCO(_dataset(found, records))
    judged = COCOeval_faster(truth, truth.loadRes(_results(found)), "bbox")
    judged.params.maxDets = [max_detections]
    judged.run()
    names = {**_NAMES, f"AR_{max_detections}": "eval/ar"}
    figures = {names[key]: value for key, value in judged.stats_as_dict.items() if key in names}
    # The library says -1 where no truth is of that size.
    return {name: value for name, value in figures.items() if value >= 0}


def _dataset(found: Sequence[Detections], records: Sequence[Record]) -> dict[str, Any]:
    """Return the truth as a COCO document; images are numbered by their order, annotations from 1."""
    labels = {label for one in (*(f.labels for f in found), *(r.labels for r in records)) for label in one.tolist()}
    numbers = itertools.count(1)
    annotations = [
        {"id": next(numbers), "image_id": image, "category_id": label, "bbox": box, "iscrowd": crowd, "area": area}
        for image, record in enumerate(records)
        for label, box, crowd, area in zip(
            record.labels.tolist(),
            box_convert(record.boxes, "xyxy", "xywh").tolist(),
            record.is_crowd.long().tolist(),
            record.area.tolist(),
            strict=True,
        )
    ]
    return {
        "images": [{"id": image, "height": r.height, "width": r.width} for image, r in enumerate(records)],
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label)} for label in sorted(labels)],
    }


def _results(found: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {"image_id": image, "category_id": label, "bbox": box, "score": score}
        for image, one in enumerate(found)
        for label, box, score in zip(
            one.labels.tolist(), box_convert(one.boxes, "xyxy", "xywh").tolist(), one.scores.tolist(), strict=True
        )
    ]


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
