from __future__ import annotations

import pytest

from services.core import names
from services.core.errors import RequestInvalid


def test_a_built_name_parses_into_its_ids() -> None:
    name = names.checkpoint("lab", "job-1", "ck-1")

    assert names.parse(name, "jobs", "checkpoints") == names.Name("lab", ("job-1", "ck-1"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("jobs/1", id="no project"),
        pytest.param("projects/lab/models/m", id="another collection"),
        pytest.param("projects/lab/jobs/../x", id="dots"),
        pytest.param("projects/lab/jobs/A", id="upper case"),
        pytest.param("projects/lab/jobs/" + "a" * 64, id="too long"),
        pytest.param("projects//jobs/a", id="empty project"),
        pytest.param("projects/lab/jobs/a/", id="trailing slash"),
    ],
)
def test_a_name_of_another_shape_is_refused_with_the_expected_one(name: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        names.parse(name, "jobs")

    (violation,) = caught.value.violations
    assert violation.field == "name"
    assert "projects/{project}/jobs/{job}" in violation.description


def test_an_empty_parent_is_the_default_project() -> None:
    assert names.parse_project("") == "default"
    assert names.parse_project("projects/lab") == "lab"
