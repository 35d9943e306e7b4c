"""Which anchor answers for which truth.

`assign_bipartite` never drops a truth: each gets an anchor of its own before any anchor is shared.
Shape letters: N images, M truths of an image (padded), A anchors.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Below half the spacing of float32 near 1 even for a million anchors: it orders ties, nothing else.
_TIE_BREAK = 1e-14


def assign_bipartite(iou: Tensor, valid: Tensor, *, threshold: float) -> Tensor:
    """Return for each anchor the index of its truth, or -1: (N, A) from `iou` (N, M, A), `valid` (N, M).

    Takes the largest entry, binds its truth and anchor, removes both, and repeats until every truth
    has an anchor; then each free anchor takes its best truth if they overlap by `threshold`. Of
    equal entries the one of the earlier truth, then of the earlier anchor wins.
    """
    assigned = _by_threshold(iou, valid, threshold)
    num_truths, num_anchors = iou.shape[1:]
    num_candidates = min(num_truths, num_anchors)
    if not num_candidates:
        return assigned
    # A truth loses at most M-1 anchors to others, so its M best anchors are all it can ever need.
    order = torch.arange(num_anchors, device=iou.device, dtype=torch.float64) * _TIE_BREAK
    anchors = (iou.double() - order).topk(num_candidates, dim=2).indices
    entries = iou.gather(2, anchors).masked_fill(~valid[:, :, None], -1)
    images = torch.arange(len(iou), device=iou.device)
    for _ in range(num_candidates):
        best = entries.flatten(1).argmax(1)
        truth, candidate = best // num_candidates, best % num_candidates
        anchor = anchors[images, truth, candidate]
        is_bound = entries[images, truth, candidate] >= 0
        assigned[images, anchor] = torch.where(is_bound, truth, assigned[images, anchor])
        entries[images, truth] = -1
        entries = entries.masked_fill((anchors == anchor[:, None, None]) & is_bound[:, None, None], -1)
    return assigned


def assign_best(iou: Tensor, valid: Tensor, *, threshold: float) -> Tensor:
    """Return for each anchor the index of its truth, or -1, as SSD's reference code does.

    Every truth forces its best anchor; where two force the same one, the later truth wins and the
    earlier may be lost.
    """
    assigned = _by_threshold(iou, valid, threshold)
    if not iou.shape[1] or not iou.shape[2]:
        return assigned
    best_anchor = iou.argmax(2)
    images = torch.arange(len(iou), device=iou.device)
    for truth in range(iou.shape[1]):
        anchor = best_anchor[:, truth]
        assigned[images, anchor] = torch.where(valid[:, truth], truth, assigned[images, anchor])
    return assigned


def _by_threshold(iou: Tensor, valid: Tensor, threshold: float) -> Tensor:
    if not iou.shape[1]:
        return torch.full((iou.shape[0], iou.shape[2]), -1, dtype=torch.int64, device=iou.device)
    overlap, truth = iou.masked_fill(~valid[:, :, None], -1).max(1)
    return truth.masked_fill(overlap < threshold, -1)
