"""The proofs of the translation recipes that make their own inputs: digits with a hole, photos made small, tinted digits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tests.builders.coloured_digits import hue, write_coloured_digits
from tests.builders.digits import write_digits
from tests.builders.photos import write_photos
from tests.proofs.proof import Bound, Broken, Proof, Run
from workers.families.answers import decoded
from workers.families.base import Instance, InstanceInvalid
from workers.families.images import to_tanh
from workers.families.translation.lab import to_lab
from workers.serving.bundle import read_parts

HUE_RIGHT = "answers/hue_right"
_ASKED = 200

_digits = partial(write_digits, size=32)
_GAME = {"loss": {"game": 0.1, "pixels": 1.0}, "pretrain_steps": 0, "limits": {"max_steps": 200}}
"""Two hundred updates of the game, which start from what pixels alone have taught."""
_PIXELS = "pixels alone"


def hues(bundle: Path) -> Mapping[str, float]:
    """Return how many held-out digits are coloured in their own hue rather than another digit's."""
    parts = read_parts(bundle)
    with tempfile.TemporaryDirectory() as folder:
        files = sorted((write_coloured_digits(Path(folder), train=0) / "val").glob("*/*.png"))[::-1]
        chosen = files[:: max(1, len(files) // _ASKED)]
        instances = [Instance(file.read_bytes(), {}, {}) for file in chosen]
        digits = [int(file.parent.name) for file in chosen]
    known = np.array([[np.cos(hue(digit)), np.sin(hue(digit))] for digit in range(10)])
    right = []
    for answer, digit in zip(parts.handler.predict(instances, parts.module), digits, strict=True):
        assert not isinstance(answer, InstanceInvalid)
        picture = to_tanh(torch.from_numpy(decoded(answer["image"])).permute(2, 0, 1)[None])
        colour = to_lab(picture)[1].mean((0, 2, 3)).numpy()
        right.append(int((known @ colour).argmax()) == digit)
    return {HUE_RIGHT: float(np.mean(right))}


PROOFS = (
    Proof(
        "translation/inpaint",
        _digits,
        (Bound("eval/hole_mse", 0.05, "max"),),
        control=Broken("tests.proofs.spoilt_pictures:BlindInpaint"),
        family="images",
    ),
    Proof(
        "translation/srgan",
        write_photos,
        # Of the cat 0.6 decibels more than interpolation are asked, of the motorcycle 1.2: their mean, and the lesser gain.
        (Bound("eval/gain", 0.9), Bound("eval/least_gain", 0.6)),
        control=Broken("tests.proofs.spoilt_pictures:ShuffledSrgan"),
        family="images",
    ),
    Proof(
        "translation/srgan",
        write_photos,
        (
            Bound("eval/detail", 0.03, over=_PIXELS),
            Bound("eval/psnr", -1.0, over=_PIXELS, beats_baseline=False),
        ),
        control={"loss": {"game": 0.0}},
        overrides=_GAME,
        start=_PIXELS,
        runs={_PIXELS: Run(overrides={"loss": {"game": 0.0}, "limits": {"max_steps": 600}})},
        family="images",
        variant="game",
    ),
    Proof(
        "translation/colorize",
        write_coloured_digits,
        (Bound("eval/ab_l1", 0.08, "max"), Bound(HUE_RIGHT, 0.88)),
        control=Broken("tests.proofs.spoilt_pictures:BlindColorize"),
        family="images",
        measure=hues,
    ),
)
