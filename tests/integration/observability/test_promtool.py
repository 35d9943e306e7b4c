"""Prometheus's own tool on what is deployed: it takes the configuration, and every alert fires when it should."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.stack.install import required_parts
from tests.stack.prometheus import DEPLOY, promtool


@pytest.fixture(scope="module")
def tool() -> Path:
    with required_parts():
        return promtool()


def run(tool: Path, *arguments: str) -> str:
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, cwd=DEPLOY, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_valid_and_finds_its_rules(tool: Path) -> None:
    said = run(tool, "check", "config", "prometheus.yml")

    assert "rule files found" in said
    assert "0 rule files found" not in said


def test_no_rule_offends_the_linter(tool: Path) -> None:
    run(tool, "check", "rules", "--lint=all", "--lint-fatal", *map(str, sorted(DEPLOY.glob("rules/*.yml"))))


@pytest.mark.parametrize("file", sorted(path.name for path in DEPLOY.glob("tests/*.yml")))
def test_alerts_fire_when_they_should_and_only_then(tool: Path, file: str) -> None:
    run(tool, "test", "rules", f"tests/{file}")
