"""The proofs of representation: scanned digits of 8 x 8 pixels, whose classes nobody tells the recipes."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.builders.digits import write_digits
from tests.proofs.proof import ONE_STEP, Bound, Broken, Proof, Run
from workers.families.base import Instance, InstanceInvalid
from workers.serving.bundle import open_bundle

ELBO, KL, KNN, CLASSES = "eval/elbo", "eval/kl", "eval/knn_accuracy", "samples/classes"
MSE, PROBE = "eval/masked_mse", "eval/linear_probe"
_SAMPLES = 1000
_PER_REQUEST = 250
_LEAST = 0.01
"""Share of the samples from which on a class counts as drawn."""

_digits = partial(write_digits, size=8)


def drawn_classes(bundle: Path) -> Mapping[str, float]:
    """Count the digits among a model's samples, as their nearest scans that no step saw tell them."""
    served = open_bundle(bundle)
    wishes = [{"op": "sample", "seed": seed, "n": _PER_REQUEST} for seed in range(0, _SAMPLES, _PER_REQUEST)]
    answers = served.handler.predict([Instance(None, wish, {}) for wish in wishes], served.network)
    pictures = [_pixels(one) for answer in answers for one in _images(answer)]
    found = _judge().predict(np.stack(pictures).reshape(len(pictures), -1))
    return {CLASSES: float(sum(np.mean(found == digit) >= _LEAST for digit in range(10)))}


def _images(answer: Any) -> list[dict[str, str]]:
    if isinstance(answer, InstanceInvalid):
        raise answer
    images: list[dict[str, str]] = answer["images"]
    return images


def _pixels(picture: Mapping[str, str]) -> Any:
    with Image.open(io.BytesIO(base64.b64decode(picture["b64"]))) as opened:
        return np.array(opened)


@cache
def _judge() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    with tempfile.TemporaryDirectory(prefix="trainyard-digits-") as directory:
        files = sorted((_digits(Path(directory)) / "val").rglob("*.png"))
        pixels = [np.asarray(Image.open(file)).ravel() for file in files]
        return KNeighborsClassifier(3).fit(np.stack(pixels), [int(file.parent.name) for file in files])


PROOFS = (
    Proof(
        "representation/vae",
        _digits,
        (
            Bound(ELBO, -25.5),
            Bound(KL, 2),
            Bound(KL, 8, "max", beats_baseline=False),
            Bound(KNN, 0.90),
            Bound(CLASSES, 9),
        ),
        control={"loss": {"beta": 20}},
        measure=drawn_classes,
    ),
    Proof(
        "representation/mae",
        _digits,
        (Bound(MSE, 0.060, "max"), Bound(PROBE, 0.88), Bound(PROBE, 0.3, over="untrained")),
        control=Broken("tests.proofs.spoilt_representation:MaeWithoutPositions"),
        # One step at the full rate leaves it worse than its first weights, whose class tokens are told rightly in .59 to
        # .71 of the cases: over those it gains .20 to .34.
        runs={"untrained": Run(overrides=ONE_STEP)},
    ),
)
