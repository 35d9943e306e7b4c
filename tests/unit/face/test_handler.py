from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tests.builders.pictures import PICTURE, READABLE, encoded, huge, pixels
from workers.families.base import Instance, InstanceInvalid, ServingSpec
from workers.families.face.align import TEMPLATE
from workers.families.face.handler import FaceHandler

SIZE = 32
SPEC = ServingSpec(input_shape=(3, SIZE, SIZE), constants={"dim": 12, "crop": 1.0})
THRESHOLD = 0.437219


def network(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return where which colour is, and a threshold, as a served network does."""
    assert images.shape[1:] == (3, SIZE, SIZE)
    embeddings = functional.normalize(functional.avg_pool2d(images, SIZE // 2).flatten(1))
    return embeddings, torch.full((len(images), 1), round(THRESHOLD * 1e6))


def sent(data: bytes | None, **fields: Any) -> Instance:
    params = fields.pop("params", {})
    return Instance(body=data, fields=fields, params=params)


def predict_one(instance: Instance) -> Mapping[str, Any] | InstanceInvalid:
    return FaceHandler(SPEC).predict([instance], network)[0]


def embedding_of(instance: Instance) -> list[float]:
    answer = predict_one(instance)
    assert not isinstance(answer, InstanceInvalid), answer
    embedding: list[float] = answer["embedding"]
    return embedding


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(), id="png"),
        pytest.param(encoded(form="JPEG", quality=95), id="jpeg"),
        pytest.param(encoded(form="WEBP", lossless=True), id="webp"),
        *(pytest.param(data, id=name) for name, data in READABLE.items() if "grey" not in name),
        pytest.param(encoded(Image.fromarray(pixels(200, 200))), id="larger"),
    ],
)
def test_one_picture_has_one_embedding_however_it_is_encoded(data: bytes) -> None:
    expected, _ = network(functional.interpolate(_normal(pixels()), SIZE, mode="area"))

    found = torch.tensor(embedding_of(sent(data)))

    assert float(found @ expected[0]) > 0.995
    assert float(found.norm()) == pytest.approx(1, abs=1e-5)


def test_an_answer_says_what_a_gallery_needs() -> None:
    answer = predict_one(sent(encoded()))

    assert not isinstance(answer, InstanceInvalid)
    assert answer["dim"] == len(answer["embedding"]) == 12
    assert answer["threshold"] == pytest.approx(THRESHOLD, abs=1e-6)
    assert predict_one(sent(None, image={"b64": base64.b64encode(encoded()).decode()})) == answer
    assert predict_one(sent(encoded(), params={"op": "embed"})) == answer


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        pytest.param(sent(b""), "empty", id="empty"),
        pytest.param(sent(huge(20_000)), "million pixels", id="huge"),
        pytest.param(sent(encoded()[:-40]), "damaged or incomplete", id="truncated"),
        pytest.param(sent(b"%PDF-1.7 and so on"), "not a JPEG, PNG or WebP", id="another type"),
        pytest.param(sent(encoded(form="GIF")), "not a JPEG, PNG or WebP", id="gif"),
        pytest.param(sent(None), "no image", id="no image"),
        pytest.param(sent(encoded(), params={"op": "verify"}), "op must be embed", id="another operation"),
        pytest.param(sent(encoded(), params={"top_k": 3}), "unknown parameter 'top_k'", id="unknown parameter"),
        pytest.param(sent(encoded(), landmarks=[[1, 2]] * 4), "landmarks must be five", id="four landmarks"),
        pytest.param(sent(encoded(), landmarks=[[1, math.nan]] * 5), "landmarks must be five", id="not a number"),
        pytest.param(sent(encoded(), landmarks=[[1, 2]] * 5), "do not lie like those", id="landmarks in one place"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(instance: Instance, reason: str) -> None:
    answer = predict_one(instance)

    assert isinstance(answer, InstanceInvalid)
    assert reason in str(answer)


def test_a_bad_instance_spoils_no_other() -> None:
    good = sent(encoded())

    first, bad, last = FaceHandler(SPEC).predict([good, sent(b"\xff\xd8\xff"), good], network)

    assert isinstance(bad, InstanceInvalid)
    assert first == last == predict_one(good)


def test_a_face_with_landmarks_is_aligned_by_them() -> None:
    small = [(x / 112 * 64 + 64, y / 112 * 64 + 192) for x, y in TEMPLATE]
    page = Image.new("RGB", (256, 512), "blue")
    page.paste(PICTURE, (64, 192))

    aligned = torch.tensor(embedding_of(sent(encoded(page), landmarks=small)))

    assert float(aligned @ torch.tensor(embedding_of(sent(encoded())))) > 0.99
    assert float(aligned @ torch.tensor(embedding_of(sent(encoded(page))))) < 0.9


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        pytest.param(lambda one: one, True, id="the same"),
        pytest.param(lambda one: {**one, "embedding": _moved(one, 0.02)}, True, id="moved a little"),
        pytest.param(lambda one: {**one, "embedding": _moved(one, 0.05)}, False, id="moved too far"),
        pytest.param(lambda one: {**one, "embedding": one["embedding"][:-1]}, False, id="another length"),
        pytest.param(lambda one: {**one, "threshold": one["threshold"] + 0.01}, False, id="another threshold"),
    ],
)
def test_the_gate_lets_pass_only_what_compares_alike(
    change: Callable[[Mapping[str, Any]], Mapping[str, Any]], passed: bool
) -> None:
    answer = predict_one(sent(encoded()))
    assert not isinstance(answer, InstanceInvalid)

    assert FaceHandler(SPEC).compare(answer, change(answer)).passed is passed


def _moved(answer: Mapping[str, Any], distance: float) -> list[float]:
    return [answer["embedding"][0] + distance, *answer["embedding"][1:]]


def _normal(array: np.ndarray[Any, Any]) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(array) / 255 - mean) / std).permute(2, 0, 1)[None]
