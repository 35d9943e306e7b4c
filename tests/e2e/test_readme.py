"""Runs what the README tells people to type, block after block, in an empty folder.

What needs an engine of containers or a cluster is run as far as it goes without: secrets are made, compose.yaml is
started for real by `make test-compose`, overlays are rendered.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image

from tests.stack import kustomize

ROOT = Path(__file__).parents[2]


ELSEWHERE = ("make ", "docker ", "kubectl ")
"""A block with one of these at the start of a line is the demo's, this suite's, an engine's or a cluster's."""


def fences() -> list[tuple[str, str]]:
    """Return (language, text) of the README's code blocks."""
    tokens = MarkdownIt().parse((ROOT / "README.md").read_text())
    return [(token.info.strip(), token.content) for token in tokens if token.type == "fence"]


def blocks() -> list[tuple[str, str]]:
    """Return the blocks that run on this machine as they are."""
    return [
        (kind, text) for kind, text in fences() if not any(line.startswith(ELSEWHERE) for line in text.splitlines())
    ]


def lines() -> list[str]:
    return [line for _, text in fences() for line in text.splitlines()]


def test_every_make_target_the_readme_names_exists() -> None:
    targets = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = {line.partition("make ")[2].split()[0] for line in lines() if "make " in line}

    assert named
    assert {name for name in named if f"make {name} " not in targets} == set()


def test_every_script_and_file_the_readme_names_exists() -> None:
    scripts = [line for line in lines() if line.startswith("deploy/")]
    copied = [line.split()[1] for line in lines() if line.startswith("cp ")]

    assert scripts
    assert copied
    assert [path for path in scripts if not os.access(ROOT / path, os.X_OK)] == []
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_the_server_s_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([ROOT / "deploy" / "secrets.sh", tmp_path / "secrets"], check=True)
        made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    subprocess.run([ROOT / "deploy" / "secrets.sh", tmp_path / "secrets"], check=True)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    assert "bootstrap_token" in made


def test_every_overlay_the_readme_applies_renders() -> None:
    overlays = [line.split()[-1] for line in lines() if line.startswith("kubectl apply -k ")]

    assert overlays
    for overlay in overlays:
        assert kustomize.render(ROOT / overlay)


def test_the_commands_work_as_written(tmp_path: Path) -> None:
    bin_dir = Path(sys.executable).parent
    environ = {
        **os.environ,
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "TRAINYARD_STATE_DIR": str(tmp_path / "state"),
        "TRAINYARD_WORKER_THREADS": "1",
    }
    try:
        for language, text in blocks():
            command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
            done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    finally:
        subprocess.run([str(bin_dir / "trainyard"), "down"], env=environ, capture_output=True)

    with Image.open(tmp_path / "boxes.png") as picture:
        assert picture.width > 128
    assert not (tmp_path / "state" / "up.lock").exists()
