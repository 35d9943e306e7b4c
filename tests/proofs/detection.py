"""The proofs of detection: boxes around shapes on a noisy gradient."""

from __future__ import annotations

from pathlib import Path

from services.datasets.shape_scenes import write_shape_scenes
from tests.proofs.proof import Bound, Proof


def _shape_scenes(folder: Path) -> object:
    return write_shape_scenes(folder, seed=0, train_images=600, val_images=150)


PROOFS = (
    Proof(
        "detection/yolo_v1",
        _shape_scenes,
        (Bound("eval/ap50", 0.92), Bound("eval/ap", 0.55)),
        control={"limits": {"max_steps": 180}},
    ),
    Proof(
        "detection/ssd",
        _shape_scenes,
        (Bound("eval/ap50", 0.80), Bound("eval/ap", 0.45)),
        control={"limits": {"max_steps": 40}},
    ),
)
