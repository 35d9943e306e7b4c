from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.builders.toy_serving import CATALOG, colour_png, write_toy_bundle
from workers.serving import answer as answer_module
from workers.serving.answer import answer_batch
from workers.serving.bundle import Served, open_bundle

KEYS = ("instances", "params", "image", "b64", "other")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return open_bundle(write_toy_bundle(tmp_path_factory.mktemp("toy") / "bundle"), catalog=CATALOG)


def envelope(*images: bytes, **params: object) -> bytes:
    instances = [{"image": {"b64": base64.b64encode(image).decode()}} for image in images]
    return json.dumps({"instances": instances, "params": params}).encode()


def test_requests_of_a_batch_keep_their_own_answers(served):
    bodies = [colour_png(0), envelope(colour_png(1), colour_png(2)), b"junk", colour_png(2)]

    answers = answer_batch(served, bodies)

    labels = [[one["label"] for one in json.loads(answers[i].body)["predictions"]] for i in (0, 1, 3)]
    assert labels == [["red"], ["green", "blue"], ["blue"]]
    assert [answer.status for answer in answers] == [200, 200, 400, 200]
    assert json.loads(answers[2].body)["message"] == answers[2].reason


def test_a_request_that_breaks_the_handler_breaks_no_other(served):
    answers = answer_batch(served, [colour_png(0), envelope(colour_png(1), explode=True), colour_png(2)])

    assert [answer.status for answer in answers] == [200, 500, 200]
    assert b"explode" not in answers[1].body


def test_a_request_of_more_pixels_than_anybody_waits_for_is_refused_before_they_are_decoded(served, monkeypatch):
    picture = colour_png(0)
    with Image.open(BytesIO(picture)) as image:
        monkeypatch.setattr(answer_module, "MAX_REQUEST_PIXELS", 2 * image.width * image.height)

    two, three, one = answer_batch(served, [envelope(*[picture] * 2), envelope(*[picture] * 3), picture])

    assert [two.status, three.status, one.status] == [200, 400, 200]
    assert "together" in three.reason


BODIES = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=100).map(lambda tail: b"{" + tail),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=10) | st.just({"b64": "AAAA"}),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    ).map(lambda value: json.dumps(value).encode()),
    st.integers(1, 60).map(lambda cut: colour_png(0)[:cut]),
)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(st.lists(BODIES, min_size=1, max_size=4))
@example([b"{" * 100_000])
@example([b'{"instances": ' + b"[" * 100_000])
def test_bodies_of_any_bytes_are_answered_or_refused_one_by_one(served, bodies):
    answers = answer_batch(served, [colour_png(1), *bodies])

    assert answers[0].status == 200
    assert {answer.status for answer in answers[1:]} <= {200, 400}
    assert not [answer for answer in answers if b"Traceback" in answer.body or b".py" in answer.body]


def test_an_answer_names_the_recipe(served: Served, tmp_path: Path):
    (answer,) = answer_batch(served, [colour_png(0)])

    assert json.loads(answer.body)["model"]["recipe"] == "toy/colour"
