"""Renders the manifests of k8s/ with kubectl or kustomize, whichever this machine has or can build."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "k8s"
CACHE = Path(__file__).parents[2] / ".cache" / "bin"
# The newest release that Go 1.26 compiles.
MODULE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.2"
_BUILD_SECONDS = 1800.0
_RENDER_SECONDS = 120.0


class KustomizeUnavailable(RuntimeError):
    """There is no kubectl and no kustomize here and none can be built; the message says what to install."""


class RenderFailed(AssertionError):
    """The manifests cannot be put together; the message is the renderer's."""


@lru_cache
def render(directory: Path) -> tuple[dict[str, Any], ...]:
    """Return the objects of one kustomization. Nobody may change them: every caller gets the same.

    Raises:
        RenderFailed: it does not build.
        KustomizeUnavailable: there is nothing to build it with.
    """
    command = [*renderer(), str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_RENDER_SECONDS, check=False)
    if done.returncode:
        raise RenderFailed(f"{directory.name}: {done.stderr.strip()}")
    return tuple(yaml.safe_load_all(done.stdout))


@lru_cache
def renderer() -> Sequence[str]:
    """Return the command that renders a folder: kubectl's, kustomize's, or that of one built into the cache."""
    if kubectl := shutil.which("kubectl"):
        return (kubectl, "kustomize")
    known = [shutil.which("kustomize"), Path.home() / "go" / "bin" / "kustomize", CACHE / "kustomize"]
    found = next((Path(path) for path in known if path is not None and Path(path).is_file()), None)
    return (str(found or _build()), "build")


def _build() -> Path:
    go = shutil.which("go")
    if go is None:
        raise KustomizeUnavailable("no `kubectl`, no `kustomize`, and no Go to build it with: install one of them")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "kustomize.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / "kustomize").is_file():
            # Built elsewhere and renamed: a build that is cut short leaves nothing that looks like a binary.
            fresh = CACHE / "building-kustomize"
            env = {**os.environ, "GOBIN": str(fresh), "GOFLAGS": "-buildvcs=false"}
            built = subprocess.run(
                [go, "install", MODULE], env=env, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
            )
            if built.returncode:
                raise KustomizeUnavailable(f"`go install {MODULE}` failed:\n{built.stderr[-2000:]}")
            (fresh / "kustomize").replace(CACHE / "kustomize")
            fresh.rmdir()
    return CACHE / "kustomize"
