"""Finds images of two splits that look alike: the same picture stored anew, at another size or quality.

A difference hash (each grey pixel against its neighbour) finds candidates, the grey pixels themselves
confirm them: small drawings such as digits often share a hash without being the same picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from services.datasets.image import LOOK_SIZE

_MAX_BITS = 3
_MAX_GREY = 4.0
# Of a flat image the hash says nothing.
_MIN_CONTRAST = 6.0
# A bucket this full holds images of one kind, not copies; comparing all of them would take hours.
_MAX_BUCKET = 2048
_NUM_BANDS = 4

Looks = npt.NDArray[np.uint8]


def look_alikes(train: Sequence[bytes], others: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return (position in others, position in train) of images that look the same; one match an image."""
    if not train or not others:
        return []
    known, asked = _looks(train), _looks(others)
    known_hash, asked_hash = _hashes(known), _hashes(asked)
    found: dict[int, int] = {}
    # Of hashes that differ in at most three bits, one of four quarters agrees.
    for band in range(_NUM_BANDS):
        for other, candidates in _candidates(known_hash[:, band], asked_hash[:, band]):
            if other in found or asked[other].std() < _MIN_CONTRAST:
                continue
            bits = np.bitwise_count(known_hash[candidates] ^ asked_hash[other]).sum(axis=1)
            close = candidates[bits <= _MAX_BITS]
            grey = np.abs(known[close].astype(np.int16) - asked[other]).mean(axis=(1, 2))
            if grey.size and grey.min() <= _MAX_GREY:
                found[other] = int(close[grey.argmin()])
    return sorted(found.items())


def _looks(images: Sequence[bytes]) -> Looks:
    width, height = LOOK_SIZE
    return np.frombuffer(b"".join(images), dtype=np.uint8).reshape(len(images), height, width)


def _hashes(looks: Looks) -> npt.NDArray[np.uint16]:
    """Return difference hashes of 64 bits as four numbers, (N, 4)."""
    bits = np.packbits(looks[:, :, 1:] > looks[:, :, :-1], axis=None)
    return bits.view(np.uint16).reshape(len(looks), _NUM_BANDS)


def _candidates(
    known: npt.NDArray[np.uint16], asked: npt.NDArray[np.uint16]
) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Yield each asked position with the known ones of the same band."""
    order = np.argsort(known, kind="stable")
    ranked = known[order]
    starts, stops = np.searchsorted(ranked, asked, "left"), np.searchsorted(ranked, asked, "right")
    for other in np.flatnonzero((stops > starts) & (stops - starts <= _MAX_BUCKET)):
        yield int(other), order[starts[other] : stops[other]]
