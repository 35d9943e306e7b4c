"""One encoded image, decoded completely to prove that training can decode it too."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from services.core.png import has_damaged_pixels
from services.datasets.limits import MIB, ImportLimits

# Pillow keeps fixing holes in decoders nobody trains from; only these three are ever tried.
FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
LOOK_SIZE = (9, 8)
_ORIENTATION_TAG, _QUARTER_TURNS = 0x0112, range(5, 9)
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


class ImageUnusable(ValueError):
    """An image file that cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the file itself says, whatever its annotations claim."""

    sha256: str
    extension: str
    size_bytes: int
    width: int
    height: int
    look: bytes
    """The image as `LOOK_SIZE` grey pixels, to find images that differ only in encoding or size."""

    is_on_side: bool = False
    """Whether its EXIF tag turns it by a quarter, so that width and height change places."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as people see it."""
        return (self.height, self.width) if self.is_on_side else (self.width, self.height)


def inspect_image(path: Path, limits: ImportLimits) -> ImageFacts:
    """Read and decode one file, or raise ImageUnusable."""
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise ImageUnusable("the file is empty; export the image again")
    if size_bytes > limits.max_image_bytes:
        raise ImageUnusable(
            f"the file has {size_bytes} bytes, the limit is {limits.max_image_bytes // MIB} MiB; shrink it"
        )
    encoded = path.read_bytes()
    return _decode(encoded, limits)


def _decode(encoded: bytes, limits: ImportLimits) -> ImageFacts:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded), formats=tuple(FORMATS)) as image:
                _check_header(image, limits)
                # Before the pixels, as readers do: a tag that comes after them turns nothing.
                is_on_side = _orientation(image) in _QUARTER_TURNS
                # verify() passes half a JPEG; only decoding every pixel proves the file whole.
                image.load()
                if has_damaged_pixels(encoded):
                    raise ImageUnusable("damaged (its pixels do not fit their checksum); export the image again")
                look = image.convert("L").resize(LOOK_SIZE, Image.Resampling.BOX)
                digest, extension = hashlib.sha256(encoded).hexdigest(), FORMATS[str(image.format)]
                return ImageFacts(digest, extension, len(encoded), *image.size, look.tobytes(), is_on_side)
    except UnidentifiedImageError as err:
        raise ImageUnusable("not a JPEG, PNG or WEBP image; convert it") from err
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise ImageUnusable(_too_many_pixels(limits)) from err
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, ZeroDivisionError) as err:
        if isinstance(err, ImageUnusable):
            raise
        raise ImageUnusable(f"damaged ({err}); export the image again") from err


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - cameras write broken EXIF; readers show such a picture as it is stored
        return 1


def _check_header(image: Image.Image, limits: ImportLimits) -> None:
    if image.width * image.height > limits.max_image_pixels:
        raise ImageUnusable(f"{image.width}x{image.height}: {_too_many_pixels(limits)}")
    if getattr(image, "is_animated", False):
        raise ImageUnusable("an animated image; keep one frame of it")
    if image.mode not in _MODES:
        raise ImageUnusable(f"pixels of mode {image.mode}; convert it to 8-bit RGB")


def _too_many_pixels(limits: ImportLimits) -> str:
    return f"more than {limits.max_image_pixels // 1_000_000} million pixels; shrink it"
