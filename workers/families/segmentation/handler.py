"""What serving does around a segmentation network: images in, a class for every pixel of the sent image out."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.images import ImageInvalid, decode, normalise
from workers.families.instances import image_bytes, refuse_unknown
from workers.families.letterbox import Fit, letterbox
from workers.families.segmentation.decision import Decided, decide, held
from workers.families.segmentation.draw import index_image, overlay
from workers.families.segmentation.regions import polygons, run_lengths

FORMATS = ("png_index", "rle", "polygon", "overlay")

# The parity gate: the share of pixels, near borders, that a faster form may decide otherwise.
_MAX_CHANGED = 0.005


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a request wants to have back."""

    formats: tuple[str, ...]
    class_ids: tuple[int, ...]
    with_probabilities: bool


@dataclass(frozen=True, slots=True)
class _Prepared:
    image: Tensor
    square: Tensor
    placed: Fit
    wish: _Wish


class SegmentationHandler(Handler):
    """Answers `{"size": [H, W], "classes": [{"id", "name", "pixels", "fraction"}], ...}` and the mask.

    Pictures of any size are fitted into the square that the network was trained and evaluated at, whose one shape is
    what compiled forms are of, and their masks are decided at their own size.

    Parameters: `format`, one or a list of `png_index` (default; an 8-bit PNG of class indices as
    `mask`), `rle` and `polygon` (by class, as `rle` and `polygons`) and `overlay` (a PNG); `classes`,
    names of those wanted in all but the index mask, which has every pixel's class; `return_probs` adds the mean probability of each class where it won.
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.classes = tuple(str(name) for name in spec.constants["classes"])
        self.size = spec.input_shape[-1]

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        prepared = [self._prepare(instance) for instance in instances]
        good = [one for one in prepared if not isinstance(one, InstanceInvalid)]
        answers = iter(self._answer(good, network))
        return [one if isinstance(one, InstanceInvalid) else next(answers) for one in prepared]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report the share of pixels whose class differs."""
        ours, theirs = _read_mask(expected), _read_mask(actual)
        if ours.shape != theirs.shape:
            return ParityReport(differences={"pixels": math.inf}, passed=False)
        changed = float((ours != theirs).mean())
        return ParityReport(differences={"pixels": changed}, passed=changed <= _MAX_CHANGED)

    def _prepare(self, instance: Instance) -> _Prepared | InstanceInvalid:
        try:
            wish = read_wish(instance.params, self.classes)
            image = decode(image_bytes(instance))
        except InstanceInvalid as err:
            return err
        except ImageInvalid as err:
            return InstanceInvalid(str(err))
        square, placed = letterbox(image, self.size)
        return _Prepared(image, square, placed, wish)

    def _answer(self, prepared: Sequence[_Prepared], network: Network) -> list[Mapping[str, Any]]:
        if not prepared:
            return []
        with torch.inference_mode():
            scores = network(normalise(torch.stack([one.square for one in prepared])))
            assert isinstance(scores, Tensor)
            return [self._describe(one, row.float().cpu()) for one, row in zip(prepared, scores, strict=True)]

    def _describe(self, one: _Prepared, scores: Tensor) -> Mapping[str, Any]:
        wish = one.wish
        decided = decide(held(scores, one.placed), one.placed, with_probabilities=wish.with_probabilities)
        mask = decided.mask
        answer: dict[str, Any] = {
            "size": list(mask.shape),
            "classes": [self._describe_class(class_id, decided, wish) for class_id in wish.class_ids],
        }
        if "png_index" in wish.formats:
            answer["mask"] = {"b64": _png(index_image(mask))}
        if "overlay" in wish.formats:
            shown = torch.where(torch.isin(mask, torch.tensor(wish.class_ids, dtype=torch.uint8)), mask, 0)
            answer["overlay"] = {"b64": _png(overlay(one.image, shown))}
        if "rle" in wish.formats:
            answer["rle"] = [{"id": one_id, **run_lengths((mask == one_id).numpy())} for one_id in wish.class_ids]
        if "polygon" in wish.formats:
            rings = ((one_id, polygons((mask == one_id).numpy())) for one_id in wish.class_ids)
            answer["polygons"] = [{"id": one_id, "rings": found} for one_id, found in rings]
        return answer

    def _describe_class(self, class_id: int, decided: Decided, wish: _Wish) -> dict[str, Any]:
        pixels = int(decided.pixels[class_id])
        row: dict[str, Any] = {
            "id": class_id,
            "name": self.classes[class_id],
            "pixels": pixels,
            "fraction": round(pixels / decided.mask.numel(), 6),
        }
        if wish.with_probabilities:
            row["probability"] = round(float(decided.probabilities[class_id]) / max(pixels, 1), 5)
        return row


def read_wish(params: Mapping[str, Any], classes: Sequence[str]) -> _Wish:
    """Read the parameters of a request.

    Raises:
        InstanceInvalid: an unknown parameter, format or class.
    """
    refuse_unknown(params, ("format", "classes", "return_probs"))
    formats = params.get("format", "png_index")
    formats = [formats] if isinstance(formats, str) else formats
    if not isinstance(formats, list | tuple) or not formats or any(one not in FORMATS for one in formats):
        raise InstanceInvalid(f"format must be one or a list of {', '.join(FORMATS)}, not {params.get('format')!r:.50}")
    with_probabilities = params.get("return_probs", False)
    if not isinstance(with_probabilities, bool):
        raise InstanceInvalid(f"return_probs must be true or false, not {with_probabilities!r:.50}")
    return _Wish(tuple(formats), _class_ids(params.get("classes"), classes), with_probabilities)


def _class_ids(names: Any, classes: Sequence[str]) -> tuple[int, ...]:
    if names is None:
        return tuple(range(len(classes)))
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise InstanceInvalid(f"classes must be a list of class names, such as {[classes[-1]]!r}")
    if unknown := [name for name in names if name not in classes]:
        shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        raise InstanceInvalid(f"classes has the unknown class {unknown[0]!r:.50}; this model knows {shown}")
    return tuple(sorted({classes.index(name) for name in names}))


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _read_mask(answer: Mapping[str, Any]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(base64.b64decode(answer["mask"]["b64"]))) as picture:
        return np.array(picture)
