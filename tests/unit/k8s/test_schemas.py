"""Every object is one that an API server takes: of two Kubernetes releases, or of the project that defines its kind."""

from __future__ import annotations

import copy
from collections import Counter

import jsonschema
import kubernetes_validate
import pytest

from tests.stack.k8s_schemas import SCHEMAS
from tests.stack.manifests import Overlay, load

RELEASES = ("1.33", "1.37")


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid_in_a_release_of_kubernetes(
    overlay: Overlay, release: str, validated: Counter[str]
) -> None:
    ours = [one for one in overlay.objects if (one["apiVersion"], one["kind"]) not in SCHEMAS]

    for one in ours:
        kubernetes_validate.validate(one, release, strict=True)

    assert ours
    validated[f"overlay {overlay.name}, Kubernetes {release}"] += len(ours)


def test_every_object_of_another_project_is_valid(overlay: Overlay, validated: Counter[str]) -> None:
    theirs = [one for one in overlay.objects if (one["apiVersion"], one["kind"]) in SCHEMAS]

    for one in theirs:
        jsonschema.Draft202012Validator(SCHEMAS[one["apiVersion"], one["kind"]]).validate(one)

    validated[f"overlay {overlay.name}, KEDA, Prometheus operator and Gateway API"] += len(theirs)


@pytest.mark.parametrize("release", RELEASES)
def test_a_misspelt_field_is_found(release: str) -> None:
    deployment = copy.deepcopy(load("dev").of("Deployment")["api"])
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(deployment, release, strict=True)


def test_a_misspelt_field_of_another_project_is_found() -> None:
    scaled = copy.deepcopy(load("prod").of("ScaledObject")["worker"])
    scaled["spec"]["maxReplicas"] = scaled["spec"].pop("maxReplicaCount")

    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.Draft202012Validator(SCHEMAS[scaled["apiVersion"], scaled["kind"]]).validate(scaled)
