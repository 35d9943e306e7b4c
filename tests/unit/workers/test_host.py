"""What the kernel says about control groups and memory, in both versions of its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers import host


def lay_out(root: Path, groups: str, files: dict[str, str]) -> None:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        pytest.param("0::/pod/a\n", {"pod/a/memory.events": "low 0\noom 3\noom_kill 2\n"}, 2, id="version 2"),
        pytest.param("0::/pod/a\n", {"memory.events": "oom_kill 4\n"}, 4, id="version 2 inside a container"),
        pytest.param(
            "4:memory:/box/x\n3:cpu:/\n0::/\n",
            {"memory/box/x/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"},
            5,
            id="version 1",
        ),
        pytest.param("0::/\n", {}, 0, id="a machine that does not say"),
    ],
)
def test_kills_for_memory_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], expected: int
) -> None:
    lay_out(tmp_path, groups, files)
    monkeypatch.setattr(host, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(host, "_CGROUP", tmp_path / "cgroup")

    assert host.oom_kill_count() == expected


def test_the_memory_of_a_group_is_that_of_its_processes() -> None:
    used = host.resident_bytes(os.getpgrp())

    assert 10 << 20 < used < 64 << 30
    assert host.resident_bytes(2**22 - 1) == 0
