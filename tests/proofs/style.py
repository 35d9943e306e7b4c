"""The proofs of style: photos redrawn in the look of stained tissue, judged by a VGG of random weights.

Random weights prove the losses and the loop, and give no looks: what is left of the distance in style, and what is
kept of the content, are measured in their features, and structure in the pixels.
"""

from __future__ import annotations

from tests.builders.style_photos import write_one_photo, write_style_photos
from tests.proofs.proof import Bound, Broken, Proof

STYLE, CONTENT = "eval/style_share", "eval/content_error"
SSIM, SSIM_STYLE = "eval/ssim", "eval/ssim_style"

PROOFS = (
    Proof(
        "style/gatys",
        write_one_photo,
        (
            Bound(STYLE, 0.05, "max"),
            # A picture that was hardly begun is still the photo.
            Bound(CONTENT, 0.08, "max", beats_baseline=False),
            Bound(SSIM, 0.5, beats_baseline=False),
            Bound(SSIM_STYLE, 0.5, "max", beats_baseline=False),
        ),
        control={"loss": {"content": 0}},
    ),
    Proof(
        "style/fast",
        write_style_photos,
        (
            Bound(STYLE, 0.3, "max"),
            Bound(CONTENT, 0.4, "max"),
            Bound(SSIM, 0.3),
        ),
        control=Broken("tests.proofs.spoilt_style:FastInTheStyleOfItsContent"),
    ),
)
