"""What serving does around a VAE: pictures or latents in, pictures or latents out, the same bytes for the same wish."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workers.families import latent
from workers.families.answers import compare_pictures, encoded, pictures_of, to_picture
from workers.families.base import Golden, Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.images import ImageInvalid, decode
from workers.families.instances import image_bytes, refuse_unknown
from workers.families.latent import LatentInvalid
from workers.families.latent_wish import LatentWish, most_samples, weight_of
from workers.families.pictures import sheet
from workers.families.representation.config import Data
from workers.families.representation.data import to_unit
from workers.families.shaped import to_shape
from workers.families.sheets import GAP

_PICTURES = ("images", "input", "reconstruction")
_NUMBERS = ("mu", "logvar", "z")
_SHEET_COLUMNS = 8
_MAX_NUMBER = 0.05
"""The parity gate: how far a faster form may move a number of the latent, whose prior has the deviation 1."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the network is asked: `numbers` are noise for a draw of the image's z, or z itself where there is none."""

    numbers: Tensor
    image: Tensor | None = None

    @staticmethod
    def width(shape: Sequence[int], latent_size: int) -> int:
        return math.prod(shape) + latent_size + 1

    def pack(self, shape: Sequence[int]) -> Tensor:
        """Return the row, float32 (width,)."""
        image = torch.zeros(*shape) if self.image is None else self.image
        return torch.cat([image.flatten(), self.numbers, torch.tensor([float(self.image is not None)])])


@dataclass(frozen=True, slots=True)
class _Wish:
    """A request, its image if it has one, and the network that answers."""

    latents: LatentWish
    image: Tensor | None
    """uint8 (C, H, W)."""
    ask: Callable[[Sequence[Row]], tuple[Tensor, Tensor, Tensor]]

    @property
    def fields(self) -> Mapping[str, Any]:
        return self.latents.fields

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (D,) of a uint8 image (C, H, W)."""
        _, mean, log_variance = self.ask([Row(torch.zeros(self.latents.latent_size), to_unit(image))])
        return mean[0], log_variance[0]


class VaeHandler(Handler):
    """Answers pictures as PNG, latents as numbers.

    An instance's fields, over the request's parameters, say what to do; `op` is one of:

    - `reconstruct` (default with an image): `input` as the network sees it, `reconstruction` and its `z`: the mean, or
      with `seed` a draw
    - `encode`: `mu` and `logvar` of an image
    - `sample` (default without an image): `n`, `seed`; sample k is that of `seed` + k, whatever is drawn beside it
    - `decode`: `z`, a vector or a seed, or a list of them
    - `walk`: `from`, `to`: a seed, a vector or a picture {"b64"}, which stands for its mean; `steps`, `mode` slerp or
      lerp; both ends are exact

    The last three take `sheet`: one PNG of all pictures.
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        channels, height, width = spec.constants["image"]
        self.data = Data(image_size=(height, width), channels=channels)
        self.shape = (int(channels), int(height), int(width))
        self.latent_size = int(spec.constants["latent_size"])

    def weigh(self, instance: Instance) -> int:
        try:
            fields = {**instance.params, **instance.fields}
            wish = self._latents(fields)
            match _op(fields, has_image=instance.body is not None):
                case "sample":
                    count = len(wish.seeds())
                case "decode":
                    count = len(wish.points("z"))
                case "walk":
                    count = wish.way()[0]
                case _:
                    count = 0
        except InstanceInvalid:
            return 0
        return weight_of(self.shape) * count

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        return [self._answer(instance, network) for instance in instances]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report the largest and the mean difference of a pixel, and the largest of a number of the latents."""
        names = [name for name in _PICTURES if name in expected]
        report = ParityReport({}, passed=True)
        if names:
            report = compare_pictures(pictures_of(expected, names), pictures_of(actual, names))
        numbers = [name for name in _NUMBERS if name in expected]
        if not numbers:
            return report
        moved = max(_moved(expected[name], actual.get(name)) for name in numbers)
        return ParityReport({**report.differences, "latent": moved}, report.passed and moved <= _MAX_NUMBER)

    def _answer(self, instance: Instance, network: Network) -> Mapping[str, Any] | InstanceInvalid:
        fields = {**instance.params, **instance.fields}
        has_image = instance.body is not None or "image" in fields
        try:
            op = _op(fields, has_image=has_image)
            run, known, takes_image = _OPERATIONS[op]
            refuse_unknown(fields, {"op", "image", *known} if takes_image else {"op", *known})
            if instance.body is not None and not takes_image:
                raise InstanceInvalid(f"{op} takes no image: leave it out, or ask for reconstruct or encode")
            image = self.read(image_bytes(instance)) if takes_image else None
            return run(self, _Wish(self._latents(fields), image, lambda rows: self._ask(rows, network)))
        except InstanceInvalid as err:
            return err
        except LatentInvalid as err:
            return InstanceInvalid(f"{op}: {err}")

    def _latents(self, fields: Mapping[str, Any]) -> LatentWish:
        return LatentWish(fields, self.latent_size, most_samples(self.shape))

    def read(self, data: bytes) -> Tensor:
        """Return an encoded image as the network sees it, uint8 (C, H, W)."""
        try:
            return to_shape(decode(data), self.data)
        except ImageInvalid as err:
            raise InstanceInvalid(str(err)) from err

    def _ask(self, rows: Sequence[Row], network: Network) -> tuple[Tensor, Tensor, Tensor]:
        """Return uint8 images, means and log variances of rows."""
        found: list[tuple[Tensor, ...]] = []
        with torch.inference_mode():
            for row in rows:
                # One at a time: libraries choose their kernels by batch size, and the same seed must give the same bytes.
                outputs = network(row.pack(self.shape)[None])
                assert isinstance(outputs, tuple)
                found.append(tuple(output.float().cpu() for output in outputs))
        images, means, log_variances = (torch.cat(parts) for parts in zip(*found, strict=True))
        if not all(bool(part.isfinite().all()) for part in (images, means, log_variances)):
            raise InstanceInvalid(
                "this leads to values that are not finite; send another image, or numbers nearer to 0"
            )
        return (images * 255).round().to(torch.uint8), means, log_variances

    def encode(self, wish: _Wish) -> dict[str, Any]:
        assert wish.image is not None
        mean, log_variance = wish.encode(wish.image)
        return {"mu": latent.exact_numbers(mean), "logvar": latent.exact_numbers(log_variance)}

    def reconstruct(self, wish: _Wish) -> dict[str, Any]:
        assert wish.image is not None
        noise, size = torch.zeros(self.latent_size), self.latent_size
        if "seed" in wish.fields:
            noise = latent.draw([wish.latents.seed("seed", 0)], size)[0]
        images, means, log_variances = wish.ask([Row(noise, to_unit(wish.image))])
        z = means[0] + (0.5 * log_variances[0]).exp() * noise
        return {
            "input": encoded(to_picture(wish.image)),
            "reconstruction": encoded(to_picture(images[0])),
            "z": latent.exact_numbers(z),
        }

    def sample(self, wish: _Wish) -> dict[str, Any]:
        seeds = wish.latents.seeds()
        return self._drawn(wish, latent.draw(seeds, self.latent_size), {"seeds": seeds})

    def decode(self, wish: _Wish) -> dict[str, Any]:
        return self._drawn(wish, wish.latents.points("z"), {})

    def walk(self, wish: _Wish) -> dict[str, Any]:
        start, end = (self._end(wish, name) for name in ("from", "to"))
        steps, mode = wish.latents.way()
        z = latent.walk(start, end, steps, mode)
        return self._drawn(wish, z, {"mode": mode}, has_sheet=True, columns=steps)

    def _end(self, wish: _Wish, name: str) -> Tensor:
        """Return an end of a walk: a latent as it is given, or the mean of a picture."""
        value = wish.fields.get(name)
        if not isinstance(value, Mapping):
            return wish.latents.point(value, name)
        try:
            image = self.read(image_bytes(Instance(None, {"image": value}, {})))
        except InstanceInvalid as err:
            raise InstanceInvalid(f"{name}: {err}") from err
        return wish.encode(image)[0]

    def _drawn(
        self,
        wish: _Wish,
        z: Tensor,
        facts: Mapping[str, Any],
        *,
        has_sheet: bool = False,
        columns: int = _SHEET_COLUMNS,
    ) -> dict[str, Any]:
        is_sheet = wish.latents.flag("sheet", default=has_sheet)
        images, _, _ = wish.ask([Row(one) for one in z])
        pictures = [to_picture(image) for image in images]
        answer: dict[str, Any] = {"images": [encoded(picture) for picture in pictures], **facts}
        if is_sheet:
            page = sheet(pictures, columns=columns, gap=GAP)
            answer["sheet"] = {"b64": base64.b64encode(page).decode()}
        if z.numel() <= latent.MAX_ECHO:
            answer["z"] = [latent.exact_numbers(one) for one in z]
        return answer


_Operation = Callable[[VaeHandler, _Wish], dict[str, Any]]
_OPERATIONS: dict[str, tuple[_Operation, tuple[str, ...], bool]] = {
    "reconstruct": (VaeHandler.reconstruct, ("seed",), True),
    "encode": (VaeHandler.encode, (), True),
    "sample": (VaeHandler.sample, ("n", "seed", "sheet"), False),
    "decode": (VaeHandler.decode, ("z", "sheet"), False),
    "walk": (VaeHandler.walk, ("from", "to", "steps", "mode", "sheet"), False),
}
"""By name: what answers, the fields it knows, and whether it takes an image."""


def make_golden(module: nn.Module, spec: ServingSpec, images: Sequence[bytes], *, device: torch.device) -> Golden:
    """Return golden requests and the answers of this network in fp32: of each encoded image, and of some draws."""
    # A copy laid out as servers lay it out, so that they answer the very bytes.
    module = copy.deepcopy(module).to(device, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    wishes: list[dict[str, Any]] = [{"op": "sample", "seed": seed} for seed in range(max(1, len(images) // 3))]
    asked = [_request({"op": "encode", "image": {"b64": base64.b64encode(images[0]).decode()}}), *map(_request, wishes)]
    instances = [
        *(Instance(data, {}, {}) for data in images),
        Instance(images[0], {"op": "encode"}, {}),
        *(Instance(None, wish, {}) for wish in wishes),
    ]

    def network(rows: Tensor) -> tuple[Tensor, ...]:
        images, means, log_variances = module(rows.to(device))
        return images, means, log_variances

    answers = VaeHandler(spec).predict(instances, network)
    rows = zip([*images, *asked], answers, strict=True)
    good = [(body, answer) for body, answer in rows if not isinstance(answer, InstanceInvalid)]
    return Golden(inputs=tuple(body for body, _ in good), answers=tuple(answer for _, answer in good))


def _request(instance: Mapping[str, Any]) -> bytes:
    return json.dumps({"instances": [instance]}).encode()


def _op(fields: Mapping[str, Any], *, has_image: bool) -> str:
    name = fields.get("op", "reconstruct" if has_image else "sample")
    if not isinstance(name, str) or name not in _OPERATIONS:
        raise InstanceInvalid(f"op must be one of {', '.join(_OPERATIONS)}, not {name!r:.50}")
    return name


def _moved(expected: Any, actual: Any) -> float:
    ours, theirs = torch.tensor(expected), torch.tensor([] if actual is None else actual)
    return float((ours - theirs).abs().max()) if ours.shape == theirs.shape else math.inf
