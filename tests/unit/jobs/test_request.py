from __future__ import annotations

from typing import Any

import pytest

from services.jobs.request import JobRequest, check, queue_of
from services.recipes.manager import RecipeManager

RECIPES = RecipeManager.of_catalog()


def make_request(**changes: Any) -> JobRequest:
    values: dict[str, Any] = {
        "project": "default",
        "recipe": "detection/yolo_v1",
        "preset": "tiny",
        "config": {},
        "dataset": "projects/default/datasets/digits",
        "dataset_version": 0,
        "resource_class": "cpu",
        "processes": 1,
        "display_name": "",
        "labels": {},
        "model_id": "digits",
        "priority": 0,
        "is_preemptible": False,
        "max_attempts": 3,
        "request_id": "one",
    }
    return JobRequest(**{**values, **changes})


def test_a_valid_request_has_no_violations() -> None:
    checked = check(make_request(), RECIPES)

    assert checked.violations == []
    assert checked.dataset_id == "digits"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"resource_class": ""}, "resources.resource_class", id="a class nobody has"),
        pytest.param({"processes": 65}, "resources.processes", id="more processes than a job may have"),
        pytest.param({"processes": -1}, "resources.processes", id="fewer processes than one"),
        pytest.param({"processes": 33}, "resources.processes", id="more processes than a batch has samples"),
        pytest.param({"model_id": "Not Valid"}, "model_id", id="no slug"),
        pytest.param({"priority": 101}, "priority", id="too high"),
        pytest.param({"priority": -101}, "priority", id="too low"),
        pytest.param({"max_attempts": 11}, "max_attempts", id="too many attempts"),
        pytest.param({"max_attempts": -1}, "max_attempts", id="negative attempts"),
        pytest.param({"dataset_version": -1}, "dataset_version", id="negative version"),
        pytest.param({"display_name": "x" * 121}, "display_name", id="too long a title"),
        pytest.param({"display_name": "a\nb"}, "display_name", id="a title of two lines"),
        pytest.param({"request_id": "\x00"}, "request_id", id="unprintable request id"),
        pytest.param({"labels": {f"k{i}": "" for i in range(33)}}, "labels", id="too many labels"),
        pytest.param({"labels": {"k": "x" * 129}}, "labels['k']", id="too long a label"),
        pytest.param({"dataset": "digits"}, "dataset", id="no name"),
        pytest.param({"dataset": "projects/other/datasets/digits"}, "dataset", id="another project's dataset"),
        pytest.param({"recipe": "detection/none"}, "recipe", id="unknown recipe"),
        pytest.param({"preset": "none"}, "preset", id="unknown preset"),
    ],
)
def test_a_mistake_names_its_field(changes: dict[str, Any], field: str) -> None:
    assert [violation.field for violation in check(make_request(**changes), RECIPES).violations] == [field]


def test_the_hash_ignores_spelling_and_the_request_id() -> None:
    first = make_request(labels={"a": "1", "b": "2"}, config={"x": 1, "y": {"z": 2}})
    again = make_request(labels={"b": "2", "a": "1"}, config={"y": {"z": 2}, "x": 1}, request_id="two")

    assert first.sha256() == again.sha256()


@pytest.mark.parametrize(
    "changes", [{"priority": 1}, {"labels": {"a": ""}}, {"config": {"x": 1}}, {"dataset_version": 2}]
)
def test_the_hash_sees_every_other_difference(changes: dict[str, Any]) -> None:
    assert make_request(**changes).sha256() != make_request().sha256()


@pytest.mark.parametrize(
    ("resource_class", "processes", "queue"),
    [("cpu", 1, "train.cpu"), ("cpu", 4, "train.cpu"), ("gpu", 1, "train.gpu"), ("gpu", 4, "train.gpu.x4")],
)
def test_a_job_of_several_gpus_waits_for_a_worker_that_has_them(
    resource_class: str, processes: int, queue: str
) -> None:
    assert queue_of(make_request(resource_class=resource_class, processes=processes)) == queue
