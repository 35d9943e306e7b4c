"""One picture in every encoding people send, and bytes that only look like one."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

ORIENTATION = 0x0112
QUARTER_CLOCKWISE = 6


def pixels(width: int = 64, height: int = 64) -> npt.NDArray[np.uint8]:
    """Return a picture whose top left quarter is red, the rest green."""
    array = np.zeros((height, width, 3), np.uint8)
    array[..., 1] = 200
    array[: height // 2, : width // 2] = (200, 0, 0)
    return array


PICTURE = Image.fromarray(pixels())


def encoded(image: Image.Image = PICTURE, form: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def tagged(image: Image.Image, orientation: int = QUARTER_CLOCKWISE, form: str = "PNG", **options: Any) -> bytes:
    """Return an image that says how it is to be turned when it is shown."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, form, exif=exif.tobytes(), **options)


def animated(form: str, image: Image.Image = PICTURE) -> bytes:
    """Return the picture as the first frame, a blue one as the second."""
    return encoded(image, form, save_all=True, append_images=[Image.new("RGB", image.size, "blue")], lossless=True)


def sixteen_bit(image: Image.Image = PICTURE) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.asarray(image).astype(np.uint16) * 257)
    return png(struct.pack(">IIBBBBB", *image.size, 16, 2, 0, 0, 0), zlib.compress(rows))


def png(header: bytes, body: bytes) -> bytes:
    """Return a PNG of these two chunks, whatever they hold."""
    chunks = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunks


def huge(side: int) -> bytes:
    """Return a small file whose header promises `side` x `side` pixels."""
    return png(struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), zlib.compress(b"\0"))


def damaged() -> bytes:
    """Return a PNG that decodes into other pixels; only its checksum tells."""
    good = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    middle = len(good) // 2
    return good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]


def odd_and_plain(image: Image.Image) -> dict[str, tuple[bytes, bytes]]:
    """Return an RGB picture in unusual encodings, each with the same pixels as a plain PNG.

    What a JPEG loses is lost in its plain one as well: Pillow's reading of it.
    """
    few = image.quantize(256, dither=Image.Dither.NONE)
    grey = image.convert("L")
    plain = {name: encoded(one.convert("RGB")) for name, one in {"": image, "few": few, "grey": grey}.items()}
    ink = encoded(image.convert("CMYK"), "JPEG", quality=95)
    with Image.open(io.BytesIO(ink)) as stored:
        plain_ink = encoded(stored.convert("RGB"))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    on_its_side = image.transpose(Image.Transpose.ROTATE_90)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return {
        "CMYK": (ink, plain_ink),
        "palette": (encoded(few), plain["few"]),
        "alpha": (encoded(image.convert("RGBA")), plain[""]),
        "grey": (encoded(grey), plain["grey"]),
        "16-bit": (sixteen_bit(image), plain[""]),
        "16-bit grey": (encoded(deep), plain["grey"]),
        "turned by its EXIF tag": (tagged(on_its_side), plain[""]),
        "mirrored by its EXIF tag": (tagged(mirrored, 2), plain[""]),
        "animated PNG": (animated("PNG", image), plain[""]),
        "animated WebP": (animated("WEBP", image), plain[""]),
    }


READABLE: dict[str, bytes] = {name: odd for name, (odd, _) in odd_and_plain(PICTURE).items()}
"""Unusual, and still the picture."""

UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "huge": huge(20_000),
    "truncated": encoded(form="JPEG", quality=95)[:-200],
    "one wrong byte among the pixels": damaged(),
    "fewer pixels than promised": huge(100),
    "another type": b"%PDF-1.7 and so on",
    "GIF": encoded(form="GIF"),
}
