from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from workers import allocator

def faults_per_round():
    for each in range(40):
        if each == 20:
            begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24, dtype=torch.uint8), torch.zeros(2**26, dtype=torch.uint8)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin) / 20

torch.set_num_threads(1)
before = faults_per_round()
print(allocator.keep_freed_memory(), before, faults_per_round())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have allocators of their own")
def test_a_freed_tensor_leaves_its_memory_to_the_next_one() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, stdout=subprocess.PIPE, text=True)

    is_kept, before, after = done.stdout.split()
    assert is_kept == "True"
    assert float(before) > 10_000
    assert float(after) < 100
