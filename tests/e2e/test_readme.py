"""Runs what the README tells people to type, block after block, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image

ROOT = Path(__file__).parents[2]


def blocks() -> list[tuple[str, str]]:
    """Return (language, text) of the README's code blocks but `make`: those are the demo's and this suite's own."""
    tokens = MarkdownIt().parse((ROOT / "README.md").read_text())
    fences = [(token.info.strip(), token.content) for token in tokens if token.type == "fence"]
    return [(language, text) for language, text in fences if not text.startswith("make ")]


def test_every_make_target_the_readme_names_exists() -> None:
    targets = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    fences = [token.content for token in MarkdownIt().parse((ROOT / "README.md").read_text()) if token.type == "fence"]
    named = {line.split()[1] for text in fences for line in text.splitlines() if line.startswith("make ")}

    assert named
    assert {name for name in named if f"make {name} " not in targets} == set()


def test_the_commands_work_as_written(tmp_path: Path) -> None:
    bin_dir = Path(sys.executable).parent
    environ = {
        **os.environ,
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "TRAINYARD_STATE_DIR": str(tmp_path / "state"),
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
