"""Every proof: what each recipe must reach on its small data, and what must not reach it, by family.

Thresholds, data and controls are those of the families' specification; a broken variant that passed
would show that a proof proves nothing.
"""

from __future__ import annotations

from tests.proofs import (
    classification,
    detection,
    face,
    gan,
    gan_lessons,
    representation,
    segmentation,
    served_gan,
    style,
    text,
    translation,
    translation_pictures,
)

PROOFS = (
    *classification.PROOFS,
    *segmentation.PROOFS,
    *detection.PROOFS,
    *face.PROOFS,
    *gan.PROOFS,
    *gan_lessons.PROOFS,
    *served_gan.PROOFS,
    *representation.PROOFS,
    *style.PROOFS,
    *text.PROOFS,
    *translation.PROOFS,
    *translation_pictures.PROOFS,
)
