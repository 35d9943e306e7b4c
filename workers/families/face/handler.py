"""What serving does around a face network: a picture in, its embedding out. Comparing is the galleries' business."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workers.families.base import Handler, Instance, InstanceInvalid, Network, ParityReport, ServingSpec
from workers.families.face.align import Landmarks, LandmarksUnusable, to_face
from workers.families.face.network import MILLION
from workers.families.images import ImageInvalid, decode, normalise
from workers.families.instances import image_bytes, refuse_unknown

_NUM_LANDMARKS = 5
_LARGEST = 1e6

# The parity gate: how far a faster form may move an embedding, and so about how much it may move a similarity.
_MAX_DISTANCE = 0.03


class FaceHandler(Handler):
    """Answers `{"embedding": [...], "dim": D, "threshold": T}`.

    The embedding has length 1, so that the inner product of two is their cosine similarity; from `threshold` on two
    pictures are best taken for one person. Embeddings of different model versions must not be compared.

    An instance may have `landmarks`: left eye, right eye, nose, left and right corner of the mouth as seen, five [x, y]
    in pixels of the upright picture; the face is then aligned by them. Without, the middle square is the face.
    The only parameter is `op`, which is `embed`.
    """

    def __init__(self, spec: ServingSpec) -> None:
        super().__init__(spec)
        self.size = spec.input_shape[-1]
        self.crop = float(spec.constants["crop"])

    def predict(self, instances: Sequence[Instance], network: Network) -> list[Mapping[str, Any] | InstanceInvalid]:
        prepared = [self._prepare(instance) for instance in instances]
        good = [one for one in prepared if isinstance(one, Tensor)]
        answers = iter(_answer(good, network))
        return [next(answers) if isinstance(one, Tensor) else one for one in prepared]

    def compare(self, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> ParityReport:
        """Report how far the embeddings are apart, and the thresholds."""
        if len(expected["embedding"]) != len(actual["embedding"]):
            return ParityReport(differences={"embedding": math.inf}, passed=False)
        moved = math.dist(expected["embedding"], actual["embedding"])
        threshold = abs(expected["threshold"] - actual["threshold"])
        return ParityReport(
            differences={"embedding": moved, "threshold": threshold},
            passed=moved <= _MAX_DISTANCE and threshold <= 1 / MILLION,
        )

    def _prepare(self, instance: Instance) -> Tensor | InstanceInvalid:
        try:
            refuse_unknown(instance.params, ("op",))
            if (wanted := instance.params.get("op", "embed")) != "embed":
                raise InstanceInvalid(f"op must be embed, not {wanted!r:.50}: galleries compare embeddings")
            image = decode(image_bytes(instance))
            landmarks = _landmarks(instance.fields.get("landmarks"))
            return to_face(image, self.size, crop=self.crop, landmarks=landmarks)
        except InstanceInvalid as err:
            return err
        except (ImageInvalid, LandmarksUnusable) as err:
            return InstanceInvalid(str(err))


def _answer(faces: Sequence[Tensor], network: Network) -> list[Mapping[str, Any]]:
    if not faces:
        return []
    with torch.inference_mode():
        outputs = network(normalise(torch.stack(list(faces))))
        assert isinstance(outputs, tuple)
        embeddings, thresholds = (output.float().cpu() for output in outputs)
    return [
        {"embedding": [round(value, 7) for value in row], "dim": len(row), "threshold": round(threshold) / MILLION}
        for row, threshold in zip(embeddings.tolist(), thresholds[:, 0].tolist(), strict=True)
    ]


def _landmarks(value: Any) -> Landmarks | None:
    if value is None:
        return None
    points = value if isinstance(value, list | tuple) else []
    if len(points) != _NUM_LANDMARKS or not all(_is_point(point) for point in points):
        raise InstanceInvalid(
            "landmarks must be five [x, y] in pixels: left eye, right eye, nose, left and right corner of the mouth"
        )
    return [(float(x), float(y)) for x, y in points]


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < _LARGEST for one in value)
    )
