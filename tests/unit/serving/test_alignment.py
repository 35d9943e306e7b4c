"""The header that stands in for the C++ library's while a package is compiled."""

from __future__ import annotations

import subprocess

import pytest

from tests.stack.install import find_program, required_parts
from workers.serving.alignment import ALIGNMENT, aligning_environment

_PROGRAM = """
#include <cstdlib>
#include <cstdint>
#include <malloc.h>
int main() {
  for (size_t size = 1; size < 10000000; size = 3 * size + 1) {
    void* block = std::malloc(size);
    if (reinterpret_cast<std::uintptr_t>(block) % %d) return 1;
    std::free(block);
  }
}
"""


@pytest.fixture(scope="module")
def compiler():
    with required_parts():
        return find_program("g++", package="g++")


def test_a_program_compiled_with_it_gets_aligned_memory(compiler, tmp_path):
    source, program = tmp_path / "program.cpp", tmp_path / "program"
    source.write_text(_PROGRAM.replace("%d", str(ALIGNMENT)))
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **aligning_environment(tmp_path, {})}

    subprocess.run([compiler, "-o", program, source], check=True, env=environment)

    assert subprocess.run([program]).returncode == 0


def test_what_the_user_includes_is_still_found_behind_it(tmp_path):
    environment = aligning_environment(tmp_path, {"CPLUS_INCLUDE_PATH": "/opt/include"})

    assert environment == {"CPLUS_INCLUDE_PATH": f"{tmp_path / 'include'}:/opt/include"}


def test_nothing_else_is_searched_where_the_user_includes_nothing(tmp_path):
    assert aligning_environment(tmp_path, {}) == {"CPLUS_INCLUDE_PATH": str(tmp_path / "include")}
