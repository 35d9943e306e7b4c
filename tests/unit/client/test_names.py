"""What a person types becomes a resource name."""

from __future__ import annotations

import pytest

from services.client.names import Namer, model_label, served_name
from services.db.deployments import model_name

NAMER = Namer("lab")


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        pytest.param("digits", "projects/lab/models/digits/versions/latest", id="a model means its newest version"),
        pytest.param("digits/3", "projects/lab/models/digits/versions/3", id="a version by number"),
        pytest.param("projects/x/models/m", "projects/x/models/m/versions/latest", id="a full model name"),
        pytest.param("projects/x/models/m/versions/2", "projects/x/models/m/versions/2", id="a full version name"),
    ],
)
def test_a_model_version(typed: str, name: str) -> None:
    assert NAMER.model_version(typed) == name


def test_a_checkpoint_is_named_by_its_job() -> None:
    assert NAMER.checkpoint("j1/c2") == "projects/lab/jobs/j1/checkpoints/c2"


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        pytest.param("digits/3", "projects/lab/models/digits/versions/3", id="a model version"),
        pytest.param("j1/c2", "projects/lab/jobs/j1/checkpoints/c2", id="a checkpoint"),
        pytest.param("datasets/net", "projects/lab/datasets/net", id="weights that were uploaded"),
        pytest.param("projects/x/datasets/net", "projects/x/datasets/net", id="their full name"),
        pytest.param("torchvision:A_Weights.DEFAULT", "torchvision:A_Weights.DEFAULT", id="weights of torchvision"),
    ],
)
def test_what_a_job_starts_from(typed: str, name: str) -> None:
    assert NAMER.start(typed) == name


def test_full_names_pass_into_other_projects() -> None:
    assert NAMER.job("projects/x/jobs/j1") == "projects/x/jobs/j1"
    assert NAMER.job("j1") == "projects/lab/jobs/j1"


def test_a_model_version_is_shown_as_it_is_typed() -> None:
    assert model_label("projects/lab/models/digits/versions/3") == "digits/3"


def test_a_deployment_is_served_under_the_name_that_the_platform_gives_it() -> None:
    assert served_name("projects/lab/deployments/digits") == model_name("lab", "digits") == "lab--digits"
