from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.builders.pictures import animated, encoded, huge, pixels, sixteen_bit, tagged
from workers.families.base import Instance, InstanceInvalid, ServingSpec
from workers.families.detection.handler import DetectionHandler
from workers.families.images import ImageInvalid, decode
from workers.families.letterbox import FILL, fit, letterbox, read_square

SIZE = 64
CLASSES = ["disc", "box"]
SPEC = ServingSpec(
    input_shape=(3, SIZE, SIZE),
    constants={"classes": CLASSES, "thresholds": {"score_threshold": 0.5, "nms_iou": 0.5, "max_detections": 100}},
)


def handler() -> DetectionHandler:
    return DetectionHandler(SPEC)


def network(*rows: tuple[list[float], list[float]]):
    """Return a network that answers the same boxes, in pixels of the square, and scores to every image."""

    def answer(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = torch.tensor([box for box, _ in rows]).reshape(1, -1, 4)
        scores = torch.tensor([score for _, score in rows]).reshape(1, -1, len(CLASSES))
        return boxes.expand(len(images), -1, -1), scores.expand(len(images), -1, -1)

    return answer


ONE_BOX = network(([10.0, 20.0, 30.0, 40.0], [0.9, 0.1]))


def photo(width: int = 64, height: int = 64, form: str = "JPEG", **options: Any) -> bytes:
    return encoded(Image.fromarray(pixels(width, height)), form, **options)


def turned() -> bytes:
    return tagged(Image.fromarray(pixels(80, 40)), form="JPEG", quality=95)


def body(data: bytes, **params: Any) -> Instance:
    return Instance(body=data, fields={}, params=params)


def predict_one(instance: Instance, net=ONE_BOX) -> Mapping[str, Any] | InstanceInvalid:
    return handler().predict([instance], net)[0]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(photo(), id="jpeg"),
        pytest.param(photo(form="PNG"), id="png"),
        pytest.param(photo(form="WEBP", lossless=True), id="webp"),
        pytest.param(photo(progressive=True), id="progressive jpeg"),
        pytest.param(encoded(Image.fromarray(pixels()).convert("CMYK"), "JPEG"), id="cmyk"),
        pytest.param(encoded(Image.fromarray(pixels()).convert("P")), id="palette"),
        pytest.param(encoded(Image.fromarray(pixels()).convert("RGBA")), id="alpha"),
        pytest.param(sixteen_bit(), id="16-bit colour"),
        pytest.param(animated("PNG"), id="animated png, first frame"),
        pytest.param(animated("WEBP"), id="animated webp, first frame"),
    ],
)
def test_every_kind_of_colour_image_shows_its_colours(data):
    image = decode(data)

    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.uint8
    assert (image[:, 16, 16].int() - torch.tensor([200, 0, 0])).abs().max() < 30
    assert (image[:, 48, 48].int() - torch.tensor([0, 200, 0])).abs().max() < 30


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(Image.new("L", (64, 64), 77), "JPEG"), id="grey jpeg"),
        pytest.param(encoded(Image.new("L", (64, 64), 77)), id="grey png"),
        pytest.param(encoded(Image.new("LA", (64, 64), (77, 255))), id="grey with alpha"),
        pytest.param(encoded(Image.fromarray(np.full((64, 64), 77 * 257, np.uint16))), id="16-bit grey"),
    ],
)
def test_grey_images_become_three_equal_channels(data):
    assert (decode(data).int() - 77).abs().max() <= 1


def test_a_transparent_image_lies_on_white():
    assert decode(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))).min() == 255


def test_a_black_and_white_image_is_read():
    assert decode(encoded(Image.new("1", (8, 8), 1))).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(orientation):
    stored = Image.fromarray(pixels(80, 40))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, "PNG", exif=exif.tobytes())

    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(decode(data).permute(1, 2, 0).numpy(), expected)
    assert read_square(data, SIZE)[1].height == expected.shape[0]


def test_a_large_photo_is_answered_in_its_own_pixels():
    # Such a JPEG is decoded at an eighth of its size.
    answer = predict_one(body(photo(1024, 512, quality=95)), network(([0.0, 16.0, 32.0, 32.0], [0.9, 0.0])))

    assert answer["image_size"] == [512, 1024]
    assert answer["boxes"] == [[0.0, 0.0, 512.0, 256.0]]
    square, _ = read_square(photo(1024, 512, quality=95), SIZE)
    exact, _ = letterbox(decode(photo(1024, 512, quality=95)), SIZE)
    assert (square.int() - exact.int()).abs().float().mean() < 2


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_spoiled_bytes_are_answered_or_refused_and_nothing_else(data: st.DataObject):
    original = data.draw(st.sampled_from([photo(), photo(form="PNG"), photo(form="WEBP"), turned()]))
    spoiled = bytearray(original[: data.draw(st.integers(1, len(original)))])
    for place in data.draw(st.lists(st.integers(0, len(spoiled) - 1), max_size=6)):
        spoiled[place] = data.draw(st.integers(0, 255))

    with suppress(ImageInvalid):
        image, _ = read_square(bytes(spoiled), SIZE)
        assert image.shape == (3, SIZE, SIZE)


def test_a_turned_photo_is_answered_as_people_see_it():
    answer = predict_one(body(turned()))

    assert answer["image_size"] == [80, 40]
    # Turned clockwise, the red quarter of the stored image is on the right.
    assert decode(turned())[0, 20, 30] > 150
    assert decode(turned(), upright=False)[0, 10, 20] > 150


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"GIF89a" + bytes(50), "not a JPEG, PNG or WebP", id="another format"),
        pytest.param(bytes(1000), "not a JPEG, PNG or WebP", id="zeros"),
        pytest.param(photo()[:-30], "damaged or incomplete", id="truncated jpeg"),
        pytest.param(photo(form="PNG")[:90], "damaged or incomplete", id="truncated png"),
        pytest.param(photo(form="WEBP")[:-20], "damaged|not a JPEG", id="truncated webp"),
        pytest.param(photo()[:300], "damaged|not a JPEG", id="only a header"),
        pytest.param(huge(8_000), "more than 50 million pixels", id="header promises 64 megapixels"),
        pytest.param(huge(30_000), "more than 50 million pixels", id="header promises 900 megapixels"),
        pytest.param(huge(100), "damaged or incomplete", id="fewer pixels than promised"),
    ],
)
def test_a_hostile_image_is_refused_with_a_reason(data, reason):
    answer = predict_one(body(data))

    assert isinstance(answer, InstanceInvalid)
    assert any(part in str(answer) for part in reason.split("|"))


def test_one_bad_instance_spoils_no_other():
    answers = handler().predict([body(photo()), body(b"junk"), body(photo(), nms_iou=7), body(photo(32, 32))], ONE_BOX)

    assert [isinstance(answer, InstanceInvalid) for answer in answers] == [False, True, True, False]
    assert answers[0]["boxes"] == [[10.0, 20.0, 30.0, 40.0]]
    assert answers[3]["boxes"] == [[5.0, 10.0, 15.0, 20.0]]


def test_only_bad_instances_never_reach_the_network():
    def network_that_must_rest(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError(images.shape)

    assert isinstance(predict_one(body(b"junk"), network_that_must_rest), InstanceInvalid)


def test_an_answer_has_the_documented_shape():
    net = network(([10.0, 20.0, 30.0, 40.0], [0.6, 0.1]), ([40.0, 40.0, 60.0, 60.0], [0.0, 0.91]))

    answer = predict_one(body(photo()), net)

    assert answer == {
        "boxes": [[40.0, 40.0, 60.0, 60.0], [10.0, 20.0, 30.0, 40.0]],
        "labels": ["box", "disc"],
        "label_ids": [2, 1],
        "scores": [0.91, 0.6],
        "image_size": [64, 64],
    }
    assert json.loads(json.dumps(answer)) == answer


def test_boxes_are_in_pixels_of_the_sent_image_and_inside_it():
    # 128 x 64 is halved and lies in rows 16 to 48 of the square.
    answer = predict_one(
        body(photo(128, 64)), network(([10.0, 26.0, 30.0, 36.0], [0.9, 0.0]), ([0.0, 0.0, 70.0, 70.0], [0.0, 0.8]))
    )

    assert answer["boxes"] == [[20.0, 20.0, 60.0, 40.0], [0.0, 0.0, 128.0, 64.0]]
    assert answer["image_size"] == [64, 128]


def test_overlapping_boxes_of_one_class_are_one():
    net = network(([10.0, 10.0, 30.0, 30.0], [0.9, 0.8]), ([11.0, 10.0, 31.0, 30.0], [0.7, 0.1]))

    assert predict_one(body(photo()), net)["labels"] == ["disc", "box"]
    assert predict_one(body(photo(), nms_iou=1.0), net)["labels"] == ["disc", "box", "disc"]


@pytest.mark.parametrize(
    ("params", "labels"),
    [
        pytest.param({"score_threshold": 0.65}, ["box", "disc"], id="higher threshold"),
        pytest.param({"score_threshold": 0}, ["box", "disc", "disc"], id="everything but zero scores"),
        pytest.param({"max_detections": 1}, ["box"], id="only the best"),
        pytest.param({"labels": ["disc"], "score_threshold": 0.3}, ["disc", "disc"], id="one class"),
    ],
)
def test_parameters_choose_what_is_answered(params, labels):
    net = network(
        ([0.0, 0.0, 10.0, 10.0], [0.7, 0.0]),
        ([20.0, 20.0, 30.0, 30.0], [0.4, 0.0]),
        ([40.0, 40.0, 50.0, 50.0], [0.0, 0.9]),
    )

    assert predict_one(body(photo(), **params), net)["labels"] == labels


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        pytest.param({"threshold": 0.5}, "unknown parameter 'threshold'; known are labels", id="unknown name"),
        pytest.param({"score_threshold": 1.5}, "score_threshold must be a number from 0 to 1", id="above one"),
        pytest.param({"score_threshold": "0.5"}, "score_threshold must be a number", id="text"),
        pytest.param({"score_threshold": float("nan")}, "score_threshold must be a number", id="not a number"),
        pytest.param({"nms_iou": True}, "nms_iou must be a number", id="truth value"),
        pytest.param({"max_detections": 0}, "max_detections must be a whole number from 1", id="none wanted"),
        pytest.param({"max_detections": 2.5}, "max_detections must be a whole number", id="half a box"),
        pytest.param({"labels": "disc"}, "labels must be a list of class names", id="bare name"),
        pytest.param({"labels": []}, "labels must be a list of class names", id="no class"),
        pytest.param({"labels": ["cat"]}, "unknown class 'cat'; this model knows disc, box", id="unknown class"),
    ],
)
def test_a_wrong_parameter_is_refused_with_a_remedy(params, reason):
    answer = predict_one(body(photo(), **params))

    assert isinstance(answer, InstanceInvalid)
    assert reason in str(answer)


def test_an_image_may_come_as_base64():
    fields = {"image": {"b64": base64.b64encode(photo()).decode()}}

    assert predict_one(Instance(body=None, fields=fields, params={}))["labels"] == ["disc"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        pytest.param({}, "no image", id="nothing"),
        pytest.param({"image": "aGk="}, "no image", id="not an object"),
        pytest.param({"image": {"b64": "%%%"}}, "not valid base64", id="not base64"),
        pytest.param({"image": {"b64": ""}}, "empty", id="empty base64"),
    ],
)
def test_a_request_without_a_readable_image_says_what_to_send(fields, reason):
    answer = predict_one(Instance(body=None, fields=fields, params={}))

    assert reason in str(answer)


def test_a_network_that_answers_nonsense_gives_no_boxes():
    nan, inf = float("nan"), float("inf")
    net = network(
        ([nan, 0.0, 9.0, 9.0], [0.9, 0.9]), ([0.0, 0.0, inf, nan], [0.9, 0.0]), ([5.0, 5.0, 5.0, 9.0], [0.9, nan])
    )

    assert predict_one(body(photo()), net)["boxes"] == []


def test_an_image_in_a_square_keeps_its_shape_between_bars_of_the_mean():
    square, placed = letterbox(decode(photo(128, 64, form="PNG")), SIZE)

    assert (placed.left, placed.top, placed.inner) == (0, 16, (32, 64))
    assert square[:, 0, 0].tolist() == list(FILL)
    assert square[1, 30, 60] == 200


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (63, 64), (480, 640)])
def test_any_shape_fits_and_comes_back(height: int, width: int):
    placed = fit(height, width, SIZE)
    inner_height, inner_width = placed.inner
    whole = torch.tensor([[0.0, 0.0, width, height]])

    assert max(inner_height, inner_width) == SIZE
    assert min(inner_height, inner_width) >= 1
    torch.testing.assert_close(placed.to_image(placed.to_square(whole)), whole, rtol=1e-4, atol=1e-2)


def answer_of(*rows: tuple[list[float], int, float], size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    return {
        "boxes": [box for box, _, _ in rows],
        "labels": [CLASSES[label - 1] for _, label, _ in rows],
        "label_ids": [label for _, label, _ in rows],
        "scores": [score for _, _, score in rows],
        "image_size": list(size),
    }


BOX = [10.0, 10.0, 30.0, 30.0]


@pytest.mark.parametrize(
    ("actual", "differences", "passed"),
    [
        pytest.param(answer_of((BOX, 1, 0.9)), (0, 0, 0), True, id="the same"),
        pytest.param(answer_of(([10.0, 11.0, 30.0, 30.0], 1, 0.88)), (1, 0.02, 0), True, id="rounding"),
        pytest.param(answer_of(([10.0, 16.0, 30.0, 36.0], 1, 0.9)), (6, 0, 0), False, id="moved"),
        pytest.param(answer_of((BOX, 1, 0.7)), (0, 0.2, 0), False, id="less sure"),
        pytest.param(answer_of((BOX, 2, 0.9)), (0, 0, 2), False, id="another class"),
        pytest.param(answer_of(), (0, 0, 1), False, id="lost"),
        pytest.param(
            answer_of((BOX, 1, 0.9), ([40.0, 40.0, 50.0, 50.0], 1, 0.51)),
            (0, 0, 0),
            True,
            id="one just above threshold",
        ),
        pytest.param(answer_of((BOX, 1, 0.9), ([40.0, 40.0, 50.0, 50.0], 1, 0.8)), (0, 0, 1), False, id="one invented"),
        pytest.param(answer_of((BOX, 1, 0.9), size=(64, 65)), None, False, id="another image"),
    ],
)
def test_comparing_answers(actual, differences, passed):
    report = handler().compare(answer_of((BOX, 1, 0.9)), actual)

    assert report.passed is passed
    if differences is not None:
        assert list(report.differences.values()) == pytest.approx(differences)


def test_boxes_without_area_do_not_hide_the_others():
    flat = answer_of(([5.0, 5.0, 5.0, 5.0], 1, 0.52), (BOX, 1, 0.9))

    assert handler().compare(flat, flat).passed


def test_two_answers_without_boxes_are_the_same():
    assert handler().compare(answer_of(), answer_of()).passed


def test_the_handler_imports_nothing_only_training_needs():
    code = (
        "import sys, workers.families.detection.handler; "
        "bad = {'torchmetrics', 'faster_coco_eval', 'workers.engine', 'sqlalchemy', 'services.db'} & set(sys.modules); "
        "sys.exit(repr(bad) if bad else 0)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
