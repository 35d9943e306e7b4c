from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.builders.toy_serving import CATALOG, colour_png, write_toy_bundle
from workers.serving.answer import answer_batch
from workers.serving.bundle import Served, open_bundle


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


def test_an_answer_names_the_recipe(served: Served, tmp_path: Path):
    (answer,) = answer_batch(served, [colour_png(0)])

    assert json.loads(answer.body)["model"]["recipe"] == "toy/colour"
