from __future__ import annotations

import pytest

from services.core.target import ServingTarget


@pytest.mark.parametrize("name", ["cpu-t1", "cpu-t16", "cuda-t2", "cpu-t1-fp32", "cpu-t1-int8"])
def test_a_name_is_read_as_what_it_was_made_of(name):
    assert str(ServingTarget.parse(name)) == name


@pytest.mark.parametrize("name", ["", "cpu", "cpu-t0", "cpu-t1-", "cpu-1", "cpu-t1-fp32-exact", "cpu-tx"])
def test_what_is_no_target_is_refused(name):
    with pytest.raises(ValueError, match="is no serving target"):
        ServingTarget.parse(name)
