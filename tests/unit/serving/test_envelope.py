from __future__ import annotations

import base64
import json

import pytest

from workers.families.base import Instance, InstanceInvalid
from workers.serving.envelope import MAX_INSTANCES, RequestRejected, parse_request, render_response


def test_anything_but_json_is_one_raw_input():
    request = parse_request(b"\xff\xd8\xff\xe0 jpeg")

    assert request.instances == (Instance(body=b"\xff\xd8\xff\xe0 jpeg", fields={}, params={}),)


def test_the_envelope_gives_every_instance_the_parameters():
    image = base64.b64encode(b"png").decode()
    body = json.dumps({"instances": [{"image": {"b64": image}}, {"text": "hi"}], "params": {"k": 1}}).encode()

    first, second = parse_request(body).instances

    assert first == Instance(body=b"png", fields={}, params={"k": 1})
    assert second == Instance(body=None, fields={"text": "hi"}, params={"k": 1})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "empty", id="nothing to answer"),
        pytest.param(b"{", "not valid JSON", id="cut short"),
        pytest.param(b'{"instances": ' + b"[" * 50_000, "not valid JSON", id="deeper than the stack"),
        pytest.param(b"{\xff}", "not valid JSON", id="no text at all"),
        pytest.param(b'{"instances": "x"}', "not a list", id="instances of another kind"),
        pytest.param(b'{"instances": [], "params": {}}', "not a list of 1", id="no instances"),
        pytest.param(b'{"instances": [{}], "params": 3}', "params", id="params of another kind"),
        pytest.param(b'{"instances": [{}], "extra": 3}', "extra", id="a key nobody reads is a typo"),
        pytest.param(json.dumps({"instances": [{}] * (MAX_INSTANCES + 1)}).encode(), "64", id="too many"),
    ],
)
def test_a_request_without_an_answer_is_rejected_with_its_reason(body, reason):
    with pytest.raises(RequestRejected, match=reason):
        parse_request(body)


@pytest.mark.parametrize(
    "instance",
    [
        pytest.param(3, id="no object"),
        pytest.param({"image": "x"}, id="an image as text"),
        pytest.param({"image": {"url": "http://example.com"}}, id="nothing is fetched"),
        pytest.param({"image": {"b64": "*"}}, id="no base64"),
        pytest.param({"image": {"b64": "é"}}, id="not even ascii"),
    ],
)
def test_a_bad_instance_leaves_the_others_alone(instance):
    body = json.dumps({"instances": [instance, {"text": "hi"}]}).encode()

    bad, good = parse_request(body).instances

    assert isinstance(bad, InstanceInvalid)
    assert isinstance(good, Instance)


def test_a_request_in_which_every_instance_failed_has_no_answer():
    with pytest.raises(RequestRejected, match="instance 1: b"):
        render_response([InstanceInvalid("a"), InstanceInvalid("b")], model={})


def test_a_number_that_is_not_finite_never_leaves():
    with pytest.raises(ValueError, match="JSON"):
        render_response([{"score": float("nan")}], model={})
