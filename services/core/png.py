"""Whether the pixels of a PNG file are those that were written: Pillow checks no chunk of pixels (IDAT) by its CRC.

A file damaged in the middle would decode into a picture that is part noise.
"""

from __future__ import annotations

import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS, _END = b"IDAT", b"IEND"
_WORD = 4


def has_damaged_pixels(encoded: bytes) -> bool:
    """Tell whether a chunk of pixels differs from its checksum; no other format is looked at, nor how a file ends."""
    if not encoded.startswith(_SIGNATURE):
        return False
    view, place = memoryview(encoded), len(_SIGNATURE)
    while place + 2 * _WORD <= len(view):
        kind, end = bytes(view[place + _WORD : place + 2 * _WORD]), place + 2 * _WORD + _number(view, place)
        if kind == _END:
            return False
        if kind == _PIXELS and end + _WORD <= len(view) and zlib.crc32(view[place + _WORD : end]) != _number(view, end):
            return True
        place = end + _WORD
    return False


def _number(view: memoryview, place: int) -> int:
    return int.from_bytes(view[place : place + _WORD], "big")
