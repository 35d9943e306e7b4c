from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from services.core.png import has_damaged_pixels


def picture(form: str) -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(target, form)
    return target.getvalue()


def flipped(encoded: bytes, place: int) -> bytes:
    return encoded[:place] + bytes([encoded[place] ^ 1]) + encoded[place + 1 :]


def test_one_flipped_bit_of_the_pixels_is_seen() -> None:
    whole = picture("PNG")
    inside = whole.index(b"IDAT") + 4 + 300

    assert not has_damaged_pixels(whole)
    assert has_damaged_pixels(flipped(whole, inside))


@pytest.mark.parametrize("size", [0, 8, 11, 33, 45, 400])
def test_a_file_that_ends_early_is_left_to_the_decoder(size: int) -> None:
    assert not has_damaged_pixels(picture("PNG")[:size])


def test_a_length_beyond_the_file_is_left_to_the_decoder() -> None:
    whole = picture("PNG")
    place = whole.index(b"IDAT") - 4

    assert not has_damaged_pixels(whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :])


def test_other_formats_have_no_such_checksums() -> None:
    encoded = picture("JPEG")

    assert not has_damaged_pixels(flipped(encoded, len(encoded) // 2))
