"""Every test here runs on each rendered overlay that it asks for; without a renderer, CI fails and a laptop skips."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.stack.kustomize import KustomizeUnavailable, renderer
from tests.stack.manifests import OVERLAYS, Overlay, load

VALIDATED = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[VALIDATED] = Counter()


@pytest.fixture(scope="session", autouse=True)
def _has_renderer() -> None:
    try:
        renderer()
    except KustomizeUnavailable as err:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(err))


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Overlay:
    return load(request.param)


@pytest.fixture
def validated(request: pytest.FixtureRequest) -> Counter[str]:
    """Counts the objects that were checked against a schema, for the line at the end of the run."""
    return request.config.stash[VALIDATED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for what, count in sorted(config.stash.get(VALIDATED, Counter()).items()):
        terminalreporter.write_line(f"k8s: {what}: {count} objects valid")
