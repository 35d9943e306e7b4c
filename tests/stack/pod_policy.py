"""What every pod of the platform must be: named image, bounded, unprivileged, with a root it cannot write to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.stack.manifests import Pod, quantity

RESOURCES = ("cpu", "memory", "ephemeral-storage")
VOLUMES = frozenset({"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected", "ephemeral"})
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def violations(pod: Pod) -> list[str]:
    """Return a sentence for everything that is wrong with a pod."""
    found = [*_of_pod(pod), *_of_volumes(pod)]
    for container in pod.containers:
        checks = (_of_image, _of_resources, _of_privileges)
        found += [f"{container['name']}: {problem}" for check in checks for problem in check(container)]
        if pod.kind != "Job":
            found += [f"{container['name']}: no {probe}" for probe in PROBES if probe not in container]
    return [f"{pod.kind} {pod.name}: {problem}" for problem in found]


def _of_pod(pod: Pod) -> Iterator[str]:
    spec, context = pod.spec, pod.spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        yield "may run as root"
    # A user of an image is a name, of which the kubelet cannot tell whether it is root.
    if any(not context.get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")):
        yield "no user, group or file system group but 0"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if spec.get("automountServiceAccountToken") is not False:
        yield "gets a token of the cluster"
    if spec.get("serviceAccountName", "default") == "default":
        yield "shares the default account"
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares a namespace of its node"
    # Services are called `api`: their variables would be read as settings, were they ever prefixed.
    if spec.get("enableServiceLinks") is not False:
        yield "gets variables of services"
    if not spec.get("priorityClassName"):
        yield "no priority"
    if not spec.get("terminationGracePeriodSeconds"):
        yield "no time to stop"


def _of_volumes(pod: Pod) -> Iterator[str]:
    disk = memory = 0.0
    for volume in pod.spec.get("volumes", ()):
        if not VOLUMES & volume.keys():
            yield f"volume {volume['name']} is of a kind that restricted pods may not have"
        if "emptyDir" in volume:
            limit = (volume["emptyDir"] or {}).get("sizeLimit")
            if limit is None:
                yield f"volume {volume['name']} has no size limit"
            elif volume["emptyDir"].get("medium") == "Memory":
                memory += quantity(limit)
            else:
                disk += quantity(limit)
    limits = pod.spec["containers"][0].get("resources", {}).get("limits", {})
    if disk > quantity(limits.get("ephemeral-storage", "0")):
        yield "is evicted before its volumes are full"
    if memory > quantity(limits.get("memory", "0")) / 2:
        yield "its volumes in memory leave less than half of it"


def _of_image(container: Mapping[str, Any]) -> Iterator[str]:
    image = container["image"]
    tag = image.rpartition("/")[2].partition(":")[2]
    if "@sha256:" not in image and tag in ("", "latest"):
        yield f"{image} can be another image tomorrow"


def _of_resources(container: Mapping[str, Any]) -> Iterator[str]:
    requests, limits = (container.get("resources", {}).get(key, {}) for key in ("requests", "limits"))
    for name in RESOURCES:
        if name not in requests or name not in limits:
            yield f"no request or no limit of {name}"
        elif quantity(requests[name]) > quantity(limits[name]):
            yield f"requests more {name} than its limit"


def _of_privileges(container: Mapping[str, Any]) -> Iterator[str]:
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
        yield "may gain privileges"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root"
    if "ALL" not in context.get("capabilities", {}).get("drop", ()) or context["capabilities"].get("add"):
        yield "keeps capabilities"
    if context.get("runAsUser") == 0:
        yield "runs as root"
