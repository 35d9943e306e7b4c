"""The proofs of translation: outlines that are filled in, in one colour or in any, and digits of two domains.

What a picture should become is known of all held-out ones here, also where recipes learn without pairs; errors of pixels
are in the range of Tanh, from -1 to 1.
"""

from __future__ import annotations

import colorsys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.svm import SVC

from tests.builders.domains import TINT, to_other_domain, write_two_digits
from tests.builders.pairs import COLOURS, write_outlines
from tests.proofs.proof import Bound, Proof
from workers.families.answers import decoded, encoded
from workers.families.base import Instance, InstanceInvalid, Network
from workers.families.pictures import png
from workers.serving.bundle import read_parts

Pixels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

COLOUR, KNOWN, KEPT = "answers/colour_right", "answers/known_l1", "answers/digit_kept"
BINS, ROUND_TRIP, SWAP = "answers/hue_bins", "answers/round_trip", "answers/style_swap"
_COLOURED = 60
"""Least difference between the channels of a pixel that has a colour."""
_HUE_BINS, _CODES, _INPUTS = 8, 24, 20
_LOST = 0.5
"""The largest distance between two hues: that of a model that takes no style."""

_random_hues = partial(write_outlines, hue="random")


def colours(bundle: Path) -> Mapping[str, float]:
    """Return how many held-out outlines are filled with the colour of their shape, rather than another's."""
    pairs = _held_out_pairs("shape")
    answers = [decoded(answer["image"]) for answer in _asked(bundle, [sent for sent, _ in pairs])]
    known = np.array(list(COLOURS.values()), dtype=np.float64)

    def nearest(picture: Pixels, inside: Flags) -> int:
        return int(np.abs(known - picture[inside].mean(0)).sum(1).argmin())

    right = [
        nearest(answer, _is_coloured(target)) == nearest(target, _is_coloured(target))
        for answer, (_, target) in zip(answers, pairs, strict=True)
    ]
    return {COLOUR: float(np.mean(right))}


def digits(bundle: Path) -> Mapping[str, float]:
    """Return how far translated digits are from what they should be, and how many are taken for the same digit still."""
    judge, pictures = _judge(), _held_out_digits()
    answers = [decoded(answer["image"]) for answer in _asked(bundle, [Image.fromarray(one) for one in pictures])]
    errors = [
        np.abs(answer.astype(np.float64) - to_other_domain(grey)).mean() / 127.5
        for answer, grey in zip(answers, pictures, strict=True)
    ]
    back = [255 - np.clip(answer / (np.array(TINT) / 255), 0, 255).mean(2) for answer in answers]
    is_kept = judge.predict(_shrunk(back)) == judge.predict(_shrunk(pictures))
    return {KNOWN: float(np.mean(errors)), KEPT: float(is_kept.mean())}


def hues(bundle: Path) -> Mapping[str, float]:
    """Return what codes do to the hue of held-out outlines.

    hue_bins    of eight, how many the answers to one outlines' 24 codes come into
    round_trip  how far a target's hue is from that of the answer which takes its style, in turns
    style_swap  the same of another outline's style
    """
    pairs = _held_out_pairs("random")[:_INPUTS]
    inside = [_is_coloured(target) for _, target in pairs]
    drawn = _asked(bundle, [sent for sent, _ in pairs], n=_CODES, seed=0)
    bins = [
        len({int(_hue(decoded(one), where) * _HUE_BINS) % _HUE_BINS for one in answer["images"]})
        for answer, where in zip(drawn, inside, strict=True)
    ]
    shifts = {ROUND_TRIP: 0, SWAP: 1}
    return {BINS: float(np.mean(bins)), **{name: _style_error(bundle, pairs, shift) for name, shift in shifts.items()}}


def _style_error(bundle: Path, pairs: Sequence[tuple[Image.Image, Pixels]], shift: int) -> float:
    """Return the mean distance of the hue of an answer from that of the style which it was to take."""
    if not read_parts(bundle).spec.constants["has_encoder"]:
        return _LOST
    errors = []
    for place, (sent, target) in enumerate(pairs):
        style = pairs[place - shift][1]
        (answer,) = _asked(bundle, [sent], style_image=encoded(Image.fromarray(style)))
        found = _hue(decoded(answer["images"][0]), _is_coloured(target))
        apart = abs(found - _hue(style, _is_coloured(style)))
        errors.append(min(apart, 1 - apart))
    return float(np.mean(errors))


def _asked(bundle: Path, pictures: Sequence[Image.Image], **params: Any) -> list[Mapping[str, Any]]:
    """Return what the handler of a bundle answers to each picture."""
    parts = read_parts(bundle)
    network: Network = parts.module.eval()
    instances = [Instance(png(picture), {}, {"size": "network", **params}) for picture in pictures]
    answers = parts.handler.predict(instances, network)
    good = [answer for answer in answers if not isinstance(answer, InstanceInvalid)]
    assert len(good) == len(pictures), answers
    return good


@cache
def _held_out_pairs(hue: Any) -> list[tuple[Image.Image, Pixels]]:
    """Return outlines and what they are filled with, those of the dataset's `val`."""
    with tempfile.TemporaryDirectory() as directory:
        folder = write_outlines(Path(directory), hue=hue)
        found = []
        for path in sorted((folder / "A" / "val").iterdir()):
            with Image.open(path) as sent, Image.open(folder / "B" / "val" / path.name) as target:
                found.append((sent.convert("RGB"), np.array(target.convert("RGB"))))
    return found


@cache
def _digits_of(split: str) -> tuple[list[Pixels], list[int]]:
    """Return grey digits of domain A."""
    with tempfile.TemporaryDirectory() as directory:
        paths = sorted((write_two_digits(Path(directory)) / f"{split}A").iterdir())
        return [np.array(Image.open(path).convert("L")) for path in paths], [int(path.name[0]) for path in paths]


def _held_out_digits() -> list[Pixels]:
    return _digits_of("val")[0]


@cache
def _judge() -> SVC:
    """Return what tells digits apart, learned from those that were trained on."""
    pictures, labels = _digits_of("train")
    return SVC(gamma="scale", C=10.0).fit(_shrunk(pictures), labels)


def _shrunk(pictures: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Return grey pictures as rows of 8 x 8 means, from 0 to 1."""
    rows = np.stack(pictures).astype(np.float64) / 255
    return rows.reshape(len(rows), 8, 4, 8, 4).mean((2, 4)).reshape(len(rows), 64)


def _is_coloured(picture: Pixels) -> Flags:
    return np.ptp(picture, axis=2) > _COLOURED


def _hue(picture: Pixels, inside: Flags) -> float:
    return colorsys.rgb_to_hsv(*(picture[inside].mean(0) / 255))[0]


PROOFS = (
    Proof(
        "translation/pix2pix",
        write_outlines,
        (Bound("eval/l1", 0.05, "max"), Bound(COLOUR, 0.95)),
        # Only the game is left: it says that a picture is one of a filled shape, but of which too late.
        control={"loss": {"l1": 0.0}, "limits": {"max_steps": 300}},
        measure=colours,
    ),
    Proof(
        "translation/cyclegan",
        write_two_digits,
        (Bound(KNOWN, 0.09, "max"), Bound(KEPT, 0.95), Bound("eval/cycle_l1", 0.10, "max")),
        control={"loss": {"cycle": 0.0}},
        measure=digits,
    ),
    Proof(
        "translation/discogan",
        write_two_digits,
        (Bound(KNOWN, 0.13, "max"), Bound(KEPT, 0.93)),
        # Neither game nor features: all that is left is to come back from wherever one went.
        control={"loss": {"game": 0.0, "features": 0.0}},
        measure=digits,
    ),
    Proof(
        "translation/bicyclegan",
        _random_hues,
        # What has learned nothing may draw noise of all hues; the other two it misses.
        (Bound(BINS, 6, beats_baseline=False), Bound(ROUND_TRIP, 0.05, "max"), Bound(SWAP, 0.05, "max")),
        # Without an encoder noise is heard by nobody: one colour, whatever is drawn.
        control={"loss": {"mode": "noise"}},
        measure=hues,
    ),
)
