"""Index masks: the class of every pixel as an 8-bit PNG, 255 where nothing is to be learned."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from services.datasets.checked import CheckedMask
from services.datasets.source import IGNORED_PIXEL, IndexMask, MaskUnusable


def store_mask(indices: IndexMask, folder: Path, *, num_classes: int) -> CheckedMask:
    """Write a mask as PNG into `folder`, named by its digest, and count its pixels.

    Raises:
        MaskUnusable: a value is neither a class nor `IGNORED_PIXEL`.
    """
    counts = np.bincount(indices.reshape(-1), minlength=IGNORED_PIXEL + 1)
    strays = np.flatnonzero(counts[num_classes:IGNORED_PIXEL]) + num_classes
    if strays.size:
        text = f"value {strays[0]} is none of the {num_classes} classes (0 to {num_classes - 1}) nor {IGNORED_PIXEL}"
        raise MaskUnusable(f"{text}, to be ignored; correct the mask or the list of classes")
    encoded = io.BytesIO()
    Image.fromarray(indices).save(encoded, "PNG")
    digest = hashlib.sha256(encoded.getbuffer()).hexdigest()
    path = folder / f"mask-{digest}.png"
    path.write_bytes(encoded.getbuffer())
    pixels = (*(int(count) for count in counts[:num_classes]), int(counts[IGNORED_PIXEL]))
    return CheckedMask(path, digest, path.stat().st_size, pixels)
