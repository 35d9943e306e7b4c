"""What serving does around a masked autoencoder: a picture in, what it makes of a part of it or an embedding out."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workers.families.answers import compare_pictures, encoded, pictures_of, to_picture
from workers.families.base import (
    Golden,
    Handler,
    Instance,
    InstanceInvalid,
    Network,
    ParityReport,
    Placement,
    ServingSpec,
)
from workers.families.images import ImageInvalid, decode
from workers.families.instances import image_bytes, refuse_unknown
from workers.families.representation.config import Data
from workers.families.representation.data import from_input, to_input
from workers.families.representation.patches import moments, to_images, to_patches
from workers.families.shaped import to_shape

PICTURES = ("masked", "reconstruction", "pasted")
_HIDDEN_GREY = 128
_MAX_SEED = 2**31
_MAX_TURN = 0.05
"""The parity gate: how far a faster form may move an embedding, as a share of its length."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """An image (C, H, W) of bytes and which of its patches are hidden (L,); None asks for its embedding."""

    image: Tensor
    hidden: Tensor | None


class Reader:
    """Reads requests for one network, and makes pictures of what it finds."""

    def __init__(self, spec: ServingSpec) -> None:
        planes, height, width = spec.input_shape
        self.patch = int(spec.constants["patch"])
        self.mask_ratio = float(spec.constants["mask_ratio"])
        self.norm_pix = bool(spec.constants["norm_pix"])
        self.data = Data.model_validate({"image_size": (height, width), "channels": planes - 1})
        self.rows, self.columns = height // self.patch, width // self.patch

    def wish(self, instance: Instance) -> _Wish:
        """Return what an instance asks for."""
        fields = {**instance.params, **instance.fields}
        op = fields.get("op", "reconstruct")
        if op not in ("reconstruct", "embed"):
            raise InstanceInvalid(f"op must be reconstruct or embed, not {op!r:.50}")
        known = ("op", "image", "mask", "mask_ratio", "seed") if op == "reconstruct" else ("op", "image")
        refuse_unknown(fields, known)
        hidden = self._hidden(fields) if op == "reconstruct" else None
        try:
            return _Wish(to_shape(decode(image_bytes(instance)), self.data), hidden)
        except ImageInvalid as err:
            raise InstanceInvalid(str(err)) from err

    def planes(self, wish: _Wish) -> Tensor:
        """Return what the network is asked, (C + 1, H, W)."""
        hidden = torch.zeros(self.rows * self.columns) if wish.hidden is None else wish.hidden.float()
        plane = self._over_pixels(hidden)
        return torch.cat([to_input(wish.image[None])[0], plane])

    def shown(self, image: Tensor, hidden: Tensor, found: Tensor) -> dict[str, Tensor]:
        """Return pictures (C, H, W) of bytes: what was seen, what was found, and what was found beside what was seen.

        `found` (C, H, W) is in the units of the loss; patches that are less their mean and over their deviation get
        those of the image, which alone tells them.
        """
        pixels = self._to_pixels(image, found)
        is_hidden = self._over_pixels(hidden.float()) > 0.5
        return {
            "masked": torch.where(is_hidden, torch.full_like(image, _HIDDEN_GREY), image),
            "reconstruction": pixels,
            "pasted": torch.where(is_hidden, pixels, image),
        }

    def grid(self, hidden: Tensor) -> list[list[int]]:
        """Return which patches are hidden (L,) as rows of 0 and 1."""
        rows: list[list[int]] = hidden.int().reshape(self.rows, self.columns).tolist()
        return rows

    def _to_pixels(self, image: Tensor, found: Tensor) -> Tensor:
        if self.norm_pix:
            mean, deviation = moments(to_patches(to_input(image[None]), self.patch))
            patches = to_patches(found[None], self.patch) * deviation + mean
            found = to_images(patches, self.patch, self.data.image_size)[0]
        return from_input(found)

    def _over_pixels(self, hidden: Tensor) -> Tensor:
        """Return a plane (1, H, W) that has each patch's value (L,) at its pixels."""
        grid = hidden.reshape(1, self.rows, self.columns)
        return grid.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)

    def _hidden(self, fields: Mapping[str, Any]) -> Tensor:
        if "mask" in fields:
            if {"mask_ratio", "seed"} & fields.keys():
                raise InstanceInvalid("give mask, or mask_ratio and seed, not both")
            return self._given(fields["mask"])
        ratio, seed = fields.get("mask_ratio", self.mask_ratio), fields.get("seed", 0)
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
            raise InstanceInvalid(f"mask_ratio must be a number from 0 to less than 1, not {ratio!r:.50}")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _MAX_SEED:
            raise InstanceInvalid(f"seed must be a whole number from 0 to {_MAX_SEED - 1}, not {seed!r:.50}")
        total = self.rows * self.columns
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
        hidden = torch.ones(total, dtype=torch.bool)
        hidden[order[: max(1, int(total * (1 - ratio)))]] = False
        return hidden

    def _given(self, mask: Any) -> Tensor:
        rows = mask if isinstance(mask, list | tuple) else ()
        is_right = len(rows) == self.rows and all(
            isinstance(row, list | tuple)
            and len(row) == self.columns
            and all(isinstance(one, bool | int | float) and one in (0, 1) for one in row)
            for row in rows
        )
        if not is_right:
            text = f"mask must be {self.rows} rows of {self.columns} numbers, 1 for each patch of {self.patch} x"
            raise InstanceInvalid(f"{text} {self.patch} pixels that is hidden, else 0")
        hidden = torch.tensor([[bool(one) for one in row] for row in rows]).flatten()
        if bool(hidden.all()):
            raise InstanceInvalid("mask hides every patch: leave at least one 0")
        return hidden


class MaeHandler(Handler):
    """Answers every picture as its `op` says, given in the fields or the request's parameters.

    - `reconstruct` (default): `masked`, `reconstruction` and `pasted`, PNGs of the size that the network sees, and the
      `mask`, rows of 1 for hidden patches. What is hidden is `mask`, or `mask_ratio` of the patches by `seed`.
    - `embed`: the class token of the whole image, `embedding`, and its length `dim`.
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.reader = Reader(spec)

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        wishes = [self._read(instance) for instance in instances]
        return [wish if isinstance(wish, InstanceInvalid) else self._answer(wish, network) for wish in wishes]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report the largest and the mean difference of a pixel, or how far the embedding moved."""
        if "embedding" not in expected:
            is_same = expected["mask"] == actual.get("mask")
            report = compare_pictures(pictures_of(expected, PICTURES), pictures_of(actual, PICTURES))
            return ParityReport(report.differences, report.passed and is_same)
        ours, theirs = expected["embedding"], actual.get("embedding", ())
        moved = math.inf
        if len(ours) == len(theirs):
            moved = math.dist(ours, theirs) / max(math.hypot(*ours), 1e-12)
        return ParityReport({"embedding": moved}, moved <= _MAX_TURN)

    def _read(self, instance: Instance) -> _Wish | InstanceInvalid:
        try:
            return self.reader.wish(instance)
        except InstanceInvalid as err:
            return err

    def _answer(self, wish: _Wish, network: Network) -> Mapping[str, Any] | InstanceInvalid:
        with torch.inference_mode():
            # One at a time: libraries choose their kernels by batch size, and the same wish must give the same bytes.
            outputs = network(self.reader.planes(wish)[None])
        assert isinstance(outputs, tuple)
        found, embedding = (output[0].float().cpu() for output in outputs)
        if not (bool(found.isfinite().all()) and bool(embedding.isfinite().all())):
            return InstanceInvalid("the network has no finite answer to this image; send another one")
        if wish.hidden is None:
            return {"embedding": [round(value, 6) for value in embedding.tolist()], "dim": len(embedding)}
        pictures = self.reader.shown(wish.image, wish.hidden, found)
        answer: dict[str, Any] = {name: encoded(to_picture(picture)) for name, picture in pictures.items()}
        return {**answer, "mask": self.reader.grid(wish.hidden)}


def make_golden(module: nn.Module, spec: ServingSpec, images: Sequence[bytes], *, placement: Placement) -> Golden:
    """Return golden requests and the answers of this network in fp32: two of three reconstruct, others embed."""
    wishes: list[dict[str, Any]] = [{"op": "embed"} if place % 3 == 2 else {} for place in range(len(images))]

    def network(planes: Tensor) -> tuple[Tensor, ...]:
        found, embedding = module(planes.to(placement.device, memory_format=placement.memory_format))
        return found, embedding

    instances = [Instance(data, wish, {}) for data, wish in zip(images, wishes, strict=True)]
    answers = MaeHandler(spec).predict(instances, network)
    bodies = [_request(data, wish) if wish else data for data, wish in zip(images, wishes, strict=True)]
    good = [(body, one) for body, one in zip(bodies, answers, strict=True) if not isinstance(one, InstanceInvalid)]
    return Golden(inputs=tuple(body for body, _ in good), answers=tuple(answer for _, answer in good))


def _request(image: bytes, wish: Mapping[str, Any]) -> bytes:
    instance = {"image": {"b64": base64.b64encode(image).decode()}, **wish}
    return json.dumps({"instances": [instance]}).encode()
