"""Requests that make no sense are refused by field, all of them at once."""

from __future__ import annotations

from typing import Any

import pytest
from trainyard.v1 import gallery_pb2 as pb

from services.core.errors import RequestInvalid
from services.galleries import convert
from services.galleries.embed import Picture

FACE = pb.FaceImage(content=b"x")
FIVE = [pb.Point(x=number, y=2 * number) for number in range(5)]


def violations(**fields: Any) -> list[str]:
    request = pb.EnrolIdentityRequest(**{"identity_id": "ada", "images": [FACE], **fields})
    with pytest.raises(RequestInvalid) as refusal:
        convert.person(request)
    return [violation.field for violation in refusal.value.violations]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"images": []}, ["images"], id="no picture"),
        pytest.param({"images": [FACE] * 17}, ["images"], id="too many"),
        pytest.param({"images": [FACE, pb.FaceImage()]}, ["images[1].content"], id="an empty one"),
        pytest.param(
            {"images": [pb.FaceImage(content=b"x", landmarks=FIVE[:4])]}, ["images[0].landmarks"], id="four points"
        ),
        pytest.param(
            {"images": [pb.FaceImage(content=b"x", landmarks=[*FIVE[:4], pb.Point(x=float("nan"))])]},
            ["images[0].landmarks"],
            id="no number",
        ),
        pytest.param({"identity_id": "Ada Lovelace"}, ["identity_id"], id="no id"),
        pytest.param(
            {"display_name": "a" * 201, "images": []}, ["display_name", "images"], id="all that is wrong is named"
        ),
    ],
)
def test_an_enrolment_that_cannot_be_names_its_fields(fields: dict[str, Any], expected: list[str]) -> None:
    assert violations(**fields) == expected


def test_a_person_is_called_by_the_id_where_no_name_is_given() -> None:
    landmarks = pb.FaceImage(content=b"y", landmarks=FIVE)

    person = convert.person(pb.EnrolIdentityRequest(identity_id="ada", images=[FACE, landmarks]))

    assert person.display_name == "ada"
    assert person.images == [Picture(b"x", []), Picture(b"y", [(float(n), 2.0 * n) for n in range(5)])]


@pytest.mark.parametrize("value", [1.01, -1.01, float("nan"), float("inf")])
def test_a_threshold_is_a_cosine(value: float) -> None:
    with pytest.raises(RequestInvalid):
        convert.threshold(pb.IdentifyRequest(threshold=value))


def test_a_threshold_of_zero_is_one_and_none_is_the_models() -> None:
    assert convert.threshold(pb.IdentifyRequest(threshold=0.0)) == 0.0
    assert convert.threshold(pb.IdentifyRequest()) is None


@pytest.mark.parametrize(("wanted", "count"), [(0, 5), (1, 1), (100, 100)])
def test_matches_are_counted(wanted: int, count: int) -> None:
    assert convert.top_k(wanted) == count


@pytest.mark.parametrize("wanted", [-1, 101])
def test_too_many_matches_are_refused(wanted: int) -> None:
    with pytest.raises(RequestInvalid):
        convert.top_k(wanted)


def test_a_verification_needs_somebody_to_compare_with() -> None:
    with pytest.raises(RequestInvalid) as refusal:
        convert.other(pb.VerifyRequest(image=FACE))

    assert [violation.field for violation in refusal.value.violations] == ["other_image"]


def test_a_deployment_of_another_project_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="its own project"):
        convert.deployment_id("projects/blue/deployments/faces", "red")


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(RequestInvalid):
        convert.is_ready(9)  # type: ignore[arg-type]
