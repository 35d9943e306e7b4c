"""The proofs of the two lessons in memory: what their networks cost at the lesson's size, and that the small ones learn.

The lesson's pictures are blurred and nobody's aim, so all that is asked of the small ones is that what they draw has the
lights and shades of a face where faces have them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.builders.faces import draw_face, draw_person, draw_shot, write_celeba
from tests.proofs.proof import Bound, Broken, Proof, Run
from workers.families.gan.config import CelebaConvConfig, CelebaFcConfig, Data
from workers.families.gan.served import Row, ServedGenerator
from workers.families.images import to_tanh
from workers.families.latent import draw
from workers.families.shaped import to_shape
from workers.serving.bundle import read_parts

STATIC, PEAK, CORRELATION = "mem/static_estimate_bytes", "mem/peak_bytes", "pictures/correlation"
_FACES = 500
_SIZE = 32
_PRINTED = 733_992 * 1024
"""Bytes that the lesson printed for its fully connected networks."""


def correlation(bundle: Path) -> Mapping[str, float]:
    """Return how single pictures of a bundle's generator correlate with the mean of faces that no training saw."""
    data = Data.model_validate(json.loads((bundle / "bundle.json").read_bytes())["config"]["data"])
    drawn, face = _drawn(bundle).flatten(1), _mean_face(data.image_size).flatten()
    drawn, face = drawn - drawn.mean(1, keepdim=True), face - face.mean()
    found = drawn @ face / (drawn.norm(dim=1) * face.norm()).clamp(min=1e-12)
    return {CORRELATION: float(found.mean())}


def _drawn(bundle: Path) -> Tensor:
    module = read_parts(bundle).module
    assert isinstance(module, ServedGenerator)
    rows = [Row(z).pack(module.layout) for z in draw(range(_FACES), module.layout.latent_size)]
    with torch.inference_mode():
        images: Tensor = module(torch.stack(rows))
    return images


@cache
def _mean_face(size: tuple[int, int]) -> Tensor:
    """Return the mean (C, H, W) of people that the dataset does not have."""
    rng = np.random.default_rng(79)
    rows = []
    for _ in range(_FACES):
        person, shot = draw_person(rng, palette="narrow"), draw_shot(rng, pose=0.0, noise=3.0)
        pixels = np.array(draw_face(person, shot, size=_SIZE, rng=rng))
        rows.append(to_shape(torch.from_numpy(pixels).permute(2, 0, 1), Data(image_size=size)))
    return to_tanh(torch.stack(rows)).mean(0)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _conv(inputs: int, outputs: int) -> int:
    return inputs * outputs * 8 * 8 + outputs


def _trained(parameters: int) -> int:
    """Return bytes in training: weight, gradient and two moments of Adam, each fp32."""
    return 16 * parameters


_PIXELS = 218 * 178 * 3
_LAYER_NORMS = 2 * 100 + 2 * 300
_FC_BYTES = _trained(_linear(_PIXELS, 100) + _linear(100, 1) + _linear(100, 300) + _linear(300, _PIXELS) + _LAYER_NORMS)
_BATCH_NORMS = 4
_CONV_BYTES = _trained(
    2 * (_conv(3, 256) + _conv(256, 256))
    # A transposed convolution has as many weights; both networks end in three maps.
    + 2 * _conv(256, 3)
    + _linear(300, 1)
    + _linear(100, 363)
    + _BATCH_NORMS * 2 * 256
) + _BATCH_NORMS * (2 * 256 * 4 + 8)  # running means and variances, and a count

# One update makes all that training holds; the figures of one picture are nobody's.
_BRIEF: Mapping[str, Any] = {
    "eval": {"num_images": 8, "batch_size": 4, "num_samples": 4, "feature_epochs": 1, "feature_images": 64},
    "limits": {"max_steps": 1},
    "runtime": {"precision": "fp32"},
}


def _at_full_size(config: CelebaFcConfig | CelebaConvConfig) -> Mapping[str, Any]:
    return {**config.model_dump(mode="json", include={"data", "model"}), **_BRIEF}


PROOFS = (
    Proof(
        "gan/celeba_fc",
        write_celeba,
        (Bound(CORRELATION, 0.5),),
        control=Broken("tests.proofs.spoilt_gan:CelebaFcOnNoise"),
        measure=correlation,
        family="images",
    ),
    Proof(
        "gan/celeba_fc",
        write_celeba,
        (
            Bound(STATIC, _FC_BYTES, "equal"),
            Bound(STATIC, 0.99 * _PRINTED),
            Bound(STATIC, 1.01 * _PRINTED, "max", beats_baseline=False),
            Bound(PEAK, 0.9 * _FC_BYTES, over="small"),
        ),
        baseline={"model": {"generator_widths": [], "discriminator_widths": []}},
        control={"model": {"generator_widths": [301]}},
        overrides=_at_full_size(CelebaFcConfig()),
        runs={"small": Run(recipe="gan/celeba_fc", overrides=_BRIEF)},
        family="images",
        variant="memory",
    ),
    Proof(
        "gan/celeba_conv",
        write_celeba,
        (Bound(CORRELATION, 0.5),),
        control=Broken("tests.proofs.spoilt_gan:CelebaConvOnNoise"),
        measure=correlation,
        family="images",
    ),
    Proof(
        "gan/celeba_conv",
        write_celeba,
        (
            Bound(STATIC, _CONV_BYTES, "equal"),
            Bound(STATIC, _FC_BYTES / 5, "max", beats_baseline=False),
        ),
        baseline={"model": {"channels": 1}},
        control={"model": {"channels": 512}},
        overrides=_at_full_size(CelebaConvConfig()),
        family="images",
        variant="memory",
    ),
)
