"""One rendered overlay as its readers want it: objects by kind, pods with their labels, quantities as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.stack.kustomize import K8S, render

OVERLAYS = ("dev", "staging", "prod")
_DIGEST = re.compile("-[0-9a-z]{10}$")
_UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True, slots=True)
class Pod:
    """A workload's pod template; `kind` and `name` are the workload's."""

    kind: str
    name: str
    replicas: int | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def container(self) -> Mapping[str, Any]:
        (only,) = self.spec["containers"]
        return only

    @property
    def env(self) -> dict[str, str]:
        """The values written in the pod itself, without those it takes from elsewhere."""
        return {one["name"]: one["value"] for one in self.container.get("env", ()) if "value" in one}

    @property
    def ports(self) -> dict[str, int]:
        return {one["name"]: one["containerPort"] for one in self.container.get("ports", ())}

    @property
    def secrets(self) -> set[str]:
        """The Secrets whose every key becomes a variable of the container, without a generated name's digest."""
        return {
            _DIGEST.sub("", one["secretRef"]["name"]) for one in self.container.get("envFrom", ()) if "secretRef" in one
        }


@dataclass(frozen=True, slots=True)
class Overlay:
    """All objects of one overlay."""

    name: str
    objects: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    @property
    def pods(self) -> dict[str, Pod]:
        return {pod.name: pod for pod in self._pods()}

    @property
    def long_running(self) -> dict[str, Pod]:
        return {name: pod for name, pod in self.pods.items() if pod.kind != "Job"}

    @property
    def settings(self) -> dict[str, str]:
        """The platform's ConfigMap, whose name ends in a digest of its content."""
        (found,) = (
            data["data"] for name, data in self.of("ConfigMap").items() if name.startswith("trainyard-settings")
        )
        return dict(found)

    def _pods(self) -> Iterator[Pod]:
        for one in self.objects:
            template = one.get("spec", {}).get("template")
            if one["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet", "CronJob") and template is not None:
                metadata = template["metadata"]
                yield Pod(
                    kind=one["kind"],
                    name=one["metadata"]["name"],
                    replicas=one["spec"].get("replicas"),
                    labels=metadata["labels"],
                    annotations=metadata.get("annotations", {}),
                    spec=template["spec"],
                )


def load(name: str) -> Overlay:
    return Overlay(name, render(K8S / "overlays" / name))


def quantity(text: str) -> float:
    """Return a quantity of Kubernetes as a number: `500m` is 0.5, `2Gi` is 2147483648."""
    unit = text.lstrip("0123456789.")
    return float(text[: len(text) - len(unit)]) * (_UNITS[unit] if unit else 1)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector takes a thing with these labels; an empty one takes everything."""
    for rule in selector.get("matchExpressions", ()):
        if rule["operator"] != "In":
            raise NotImplementedError(rule["operator"])
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
