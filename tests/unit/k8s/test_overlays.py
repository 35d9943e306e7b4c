"""Overlays hold differences, components hold one thing each, and no file lies about unused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stack.kustomize import K8S, RenderFailed, render
from tests.stack.manifests import OVERLAYS, load

ALLOWED = {"apiVersion", "kind", "namespace", "resources", "components", "images", "replicas", "patches"}
GENERATORS = {"configMapGenerator", "secretGenerator"}
MAX_PATCH_LINES = 10
SERVICES = {"postgres", "redis", "minio"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_holds_only_differences(name: str) -> None:
    folder = K8S / "overlays" / name
    overlay = _kustomization(folder)
    patches = [one["path"] for one in overlay.get("patches", ())]

    assert overlay.keys() <= ALLOWED | GENERATORS
    assert all(Path(one).parts[:3] == ("..", "..", "base") for one in overlay["resources"])
    assert all(Path(one).parts[:3] == ("..", "..", "components") for one in overlay["components"])
    assert {path.name for path in folder.iterdir()} == {"kustomization.yaml", *patches}
    for patch in patches:
        assert len((folder / patch).read_text().splitlines()) <= MAX_PATCH_LINES, patch


def test_only_the_trial_makes_secrets() -> None:
    generating = {
        path.parent.name for path in K8S.rglob("kustomization.yaml") if "secretGenerator" in _kustomization(path.parent)
    }

    assert generating == {"dev"}


def test_images_of_the_platform_get_their_tags_in_overlays_only() -> None:
    written = {
        container["image"]
        for path in (K8S / "base").rglob("*.yaml")
        for one in _documents(path)
        for container in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ())
    }

    assert {image for image in written if image.startswith("trainyard/")} == {
        "trainyard/api",
        "trainyard/worker",
        "trainyard/torchserve",
        "trainyard/minio",
    }


def test_an_overlay_runs_one_version_of_the_platform() -> None:
    for name in OVERLAYS:
        images = {pod.container["image"] for pod in load(name).pods.values()}
        assert len({image.partition(":")[2] for image in images if image.startswith("trainyard/")}) == 1


def test_servers_for_trials_stay_in_trials() -> None:
    assert load("dev").pods.keys() >= SERVICES
    for name in ("staging", "prod"):
        overlay = load(name)
        assert not overlay.pods.keys() & SERVICES
        assert not [policy for policy in overlay.of("NetworkPolicy") if policy.startswith("trial-")]
        assert overlay.settings["TRAINYARD_S3_SECURE"] == "true"


def test_every_file_is_used_by_a_kustomization() -> None:
    used = {path for folder in K8S.rglob("kustomization.yaml") for path in _uses(folder.parent)}
    files = {path for path in K8S.rglob("*") if path.is_file() and path.suffix != ".md"}
    roots = {K8S / "overlays" / name for name in OVERLAYS}

    assert {path for path in files if path not in used and path.name != "kustomization.yaml"} == set()
    assert {path.parent for path in files if path.name == "kustomization.yaml"} - roots <= used


def test_the_gpu_worker_is_the_worker_with_another_queue_and_a_gpu() -> None:
    prod = load("prod")
    cpu, gpu = prod.pods["worker"], prod.pods["worker-gpu"]

    assert gpu.container["image"] == cpu.container["image"]
    assert gpu.env["TRAINYARD_WORKER_QUEUES"] == "train.gpu"
    assert gpu.container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in cpu.container["resources"]["limits"]
    assert gpu.labels["app.kubernetes.io/name"] != cpu.labels["app.kubernetes.io/name"]


def test_a_kustomization_that_does_not_build_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")

    with pytest.raises(RenderFailed, match=r"missing\.yaml"):
        render(tmp_path)


def _kustomization(folder: Path) -> dict[str, Any]:
    (document,) = _documents(folder / "kustomization.yaml")
    return document


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def _uses(folder: Path) -> Iterator[Path]:
    kustomization = _kustomization(folder)
    names = [*kustomization.get("resources", ()), *kustomization.get("components", ())]
    names += [one["path"] for one in kustomization.get("patches", ()) if "path" in one]
    for name in names:
        yield (folder / name).resolve()
