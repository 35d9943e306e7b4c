"""What serving does around a generator: latents and wishes in, pictures out, the same bytes for the same wish."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workers.families.answers import compare_pictures, encoded, pictures_of, to_picture
from workers.families.base import Golden, Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.gan.operations import Drawing, plan
from workers.families.gan.request import Model
from workers.families.images import from_tanh
from workers.families.pictures import sheet

PICTURE_LISTS = ("images", "before", "after")

_MAX_POINT = 0.01
"""The parity gate: how far a faster form may move a point, as a share of the largest coordinate."""
_GAP = 2


class GanHandler(Handler):
    """Answers `{"images": [{"b64"}], "z": [...], "seeds": [...]}`, PNGs; or `points` where the generator makes those.

    An instance's fields, over the request's parameters, say what to do; `op` is one of:

    - `sample` (default): `n`, `seed`; sample k is that of `seed` + k, whatever is drawn beside it
    - `decode`: `z`, a vector or a list of them
    - `walk`: `from`, `to`, `steps`, `mode` slerp or lerp; both ends are exact
    - `arithmetic`: `terms` [{sign, group | seed | z}], `renorm`, `jitter`, `n`, `seed`
    - `direction`: bases (`seed` and `n`, or `z`), `name` | `direction` | `plus` and `minus`, `alpha`
    - `ablate`: bases, `layer` and `units` | `concept`, `strength`; answers `before` and `after`
    - `mix` (stylegan2): `coarse`, `fine`, `cut`: the first layer that takes the fine style; `z` has both latents

    A latent is given by its seed or as numbers. All take `class` or `labels`, `truncation` and `sheet`: one
    PNG of all pictures.
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.model = Model.of(spec)

    def weigh(self, instance: Instance) -> int:
        drawing = self._plan(instance)
        return 0 if isinstance(drawing, InstanceInvalid) else self.model.weight * len(drawing.rows)

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        plans = [self._plan(instance) for instance in instances]
        return [one if isinstance(one, InstanceInvalid) else self._draw(one, network) for one in plans]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report the largest and the mean difference of a pixel, or the largest of a point."""
        names = [name for name in ("points", *PICTURE_LISTS) if name in expected]
        if not self.model.is_picture:
            return _compare_points(*([one for name in names for one in answer[name]] for answer in (expected, actual)))
        return compare_pictures(pictures_of(expected, names), pictures_of(actual, names))

    def _plan(self, instance: Instance) -> Drawing | InstanceInvalid:
        if instance.body is not None:
            text = 'a generator takes no image: send fields, such as {"instances": [{"op": "sample", "seed": 1}]}'
            return InstanceInvalid(text)
        try:
            return plan({**instance.params, **instance.fields}, self.model)
        except InstanceInvalid as err:
            return err

    def _draw(self, drawing: Drawing, network: Network) -> Mapping[str, Any] | InstanceInvalid:
        rows = [row.pack(self.model.layout) for row in drawing.rows]
        with torch.inference_mode():
            # One at a time: libraries choose their kernels by batch size, and the same seed must give the same bytes.
            drawn = torch.cat([_only(network(row[None])) for row in rows])
        if not bool(drawn.isfinite().all()):
            return InstanceInvalid("these latents lead to values that are not finite; send numbers nearer to 0")
        return self._describe(drawing, drawn)

    def _describe(self, drawing: Drawing, drawn: Tensor) -> Mapping[str, Any]:
        size = len(drawn) // len(drawing.lists)
        parts = dict(zip(drawing.lists, torch.split(drawn, size), strict=True))
        if not self.model.is_picture:
            named = {"points" if name == "images" else name: part.tolist() for name, part in parts.items()}
            return {**named, **drawing.facts}
        pictures = {name: [to_picture(from_tanh(one)) for one in part] for name, part in parts.items()}
        answer: dict[str, Any] = {name: [encoded(one) for one in many] for name, many in pictures.items()}
        if drawing.sheet_columns is not None:
            together = [one for many in pictures.values() for one in many]
            page = sheet(together, columns=drawing.sheet_columns, gap=_GAP)
            answer["sheet"] = {"b64": base64.b64encode(page).decode()}
        return {**answer, **drawing.facts}


def make_golden(module: nn.Module, spec: ServingSpec, *, device: torch.device, count: int) -> Golden:
    """Return golden requests and the answers of this network in fp32: samples, truncated ones, and one without a unit."""
    # A copy laid out as servers lay it out, so that they answer the very bytes.
    module = copy.deepcopy(module).to(device, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    wishes: list[dict[str, Any]] = [{"op": "sample", "seed": seed} for seed in range(count)]
    layers = spec.constants["row"]["layers"]
    if layers and count > 2:
        wishes[-1] = {"op": "ablate", "seed": count, "layer": layers[-1][0], "units": [0]}
        wishes[-2] = {"op": "sample", "seed": count, "truncation": 0.7}

    def network(rows: Tensor) -> Tensor:
        drawn: Tensor = module(rows.to(device))
        return drawn.cpu()

    answers = GanHandler(spec).predict([Instance(None, wish, {}) for wish in wishes], network)
    bodies = [json.dumps({"instances": [wish]}).encode() for wish in wishes]
    good = [(body, one) for body, one in zip(bodies, answers, strict=True) if not isinstance(one, InstanceInvalid)]
    return Golden(inputs=tuple(body for body, _ in good), answers=tuple(one for _, one in good))


def _only(drawn: Tensor | tuple[Tensor, ...]) -> Tensor:
    assert isinstance(drawn, Tensor)
    return drawn.float().cpu()


def _compare_points(expected: Sequence[Sequence[float]], actual: Sequence[Sequence[float]]) -> ParityReport:
    ours, theirs = np.asarray(expected), np.asarray(actual)
    if ours.shape != theirs.shape:
        return ParityReport({"point": math.inf}, passed=False)
    largest = float(np.abs(ours - theirs).max())
    return ParityReport({"point": largest}, largest <= _MAX_POINT * max(1.0, float(np.abs(ours).max())))
