from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have allocators of their own")

COUNT = """
import resource, torch

def faults_per_round():
    for each in range(40):
        if each == 20:
            begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24, dtype=torch.uint8), torch.zeros(2**26, dtype=torch.uint8)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin) / 20

torch.set_num_threads(1)
"""
ALONE = """
from workers import allocator

before = faults_per_round()
print(allocator.keep_freed_memory(2**30), before, faults_per_round())
"""
TRAINER = """
import os, sys
from pathlib import Path
from workers import child, plan

directory = Path(sys.argv[1])
child._MODES["count"] = lambda *_: (directory / "faults").write_text(str(faults_per_round()))
plan.write_plan(directory, {"threads": 1, "mode": "count"})
(frames, _), (watched, kept_open) = os.pipe(), os.pipe()
sys.exit(child.main(directory, frames, watched, parent_pid=os.getppid()))
"""


def test_a_freed_tensor_leaves_its_memory_to_the_next_one() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT + ALONE], check=True, stdout=subprocess.PIPE, text=True)

    is_kept, before, after = done.stdout.split()
    assert is_kept == "True"
    assert float(before) > 10_000
    assert float(after) < 100


def test_trainers_keep_freed_memory(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", COUNT + TRAINER, str(tmp_path)], check=True)

    assert float((tmp_path / "faults").read_text()) < 100
