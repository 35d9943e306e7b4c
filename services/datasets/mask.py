"""Index masks: the class of every pixel as an 8-bit PNG, 255 where nothing is to be learned."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from services.core.png import has_damaged_pixels
from services.datasets.checked import CheckedMask
from services.datasets.limits import MIB, ImportLimits
from services.datasets.source import IGNORED_PIXEL, IndexMask, MaskUnusable

_INDEX_MODES = frozenset({"1", "L", "P"})


@dataclass(frozen=True, slots=True)
class MaskFile:
    """A mask kept as PNG: of class indices or, where `colours` gives the class of each, of colours.

    Colours are numbers 0xRRGGBB.
    """

    where: str
    path: Path
    limits: ImportLimits
    colours: Mapping[int, int] | None = None

    def indices(self, width: int, height: int) -> IndexMask:
        """Return class indices of shape (height, width); see SourceMask."""
        size_bytes = self.path.stat().st_size
        if size_bytes > self.limits.max_image_bytes:
            raise MaskUnusable(f"{size_bytes} bytes, the limit is {self.limits.max_image_bytes // MIB} MiB; shrink it")
        try:
            with Image.open(self.path, formats=("PNG",)) as mask:
                # Checked before a pixel is decoded: the image's own size is within the limits.
                if mask.size != (width, height):
                    shown = f"{mask.width}x{mask.height}, but its image is {width}x{height}"
                    raise MaskUnusable(f"is {shown}; store both at one size, the mask scaled by nearest neighbour")
                if has_damaged_pixels(self.path.read_bytes()):
                    raise MaskUnusable("damaged (its pixels do not fit their checksum); export it again")
                return self._values(mask)
        except UnidentifiedImageError as err:
            raise MaskUnusable("not a PNG file; masks must be stored without loss, as PNG") from err
        except (OSError, SyntaxError, ValueError, EOFError) as err:
            if isinstance(err, MaskUnusable):
                raise
            raise MaskUnusable(f"damaged ({err}); export it again") from err

    def _values(self, mask: Image.Image) -> IndexMask:
        if self.colours is not None and mask.mode in {*_INDEX_MODES, "RGB", "RGBA"}:
            return _by_colour(np.asarray(mask.convert("RGB")), self.colours)
        if mask.mode not in _INDEX_MODES:
            text = f"pixels of mode {mask.mode}, not class indices; store 8-bit indices"
            raise MaskUnusable(f"{text}, or give every class its colour in classes.txt: `name 255 0 0`")
        return np.asarray(mask).astype(np.uint8)


def _by_colour(pixels: npt.NDArray[np.uint8], colours: Mapping[int, int]) -> IndexMask:
    codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    known = np.array(sorted(colours), dtype=np.int32)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    strays = known[place] != codes
    if strays.any():
        # Without its place, so that what is wrong with many masks alike is said once.
        colour = " ".join(map(str, pixels[strays][0]))
        text = f"colour {colour} belongs to no class; scale masks by nearest neighbour"
        raise MaskUnusable(f"{text}, or add the colour to the list of classes")
    values: IndexMask = np.array([colours[int(code)] for code in known], dtype=np.uint8)[place]
    return values


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
