"""The proofs of segmentation: shapes on a noisy gradient, and what finer skips add."""

from __future__ import annotations

from tests.builders.segmentation_scenes import write_segmentation_scenes
from tests.proofs.proof import Bound, Broken, Proof, Run

MIOU = "eval/miou"

PROOFS = (
    Proof(
        "segmentation/fcn",
        write_segmentation_scenes,
        (
            Bound(MIOU, 0.70),
            Bound(MIOU, 0.05, over="16s"),
            Bound(MIOU, 0.10, of="16s", over="32s"),
        ),
        control=Broken("tests.proofs.spoilt_segmentation:FcnWithDeadSkips"),
        runs={
            "32s": Run(overrides={"model": {"variant": "32s"}}),
            "16s": Run(overrides={"model": {"variant": "16s"}}),
        },
    ),
    Proof("segmentation/torchvision", write_segmentation_scenes, (Bound(MIOU, 0.50),)),
)
