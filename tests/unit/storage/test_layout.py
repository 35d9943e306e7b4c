from __future__ import annotations

import pytest

from services.storage import layout


def test_attempts_of_one_step_never_share_a_prefix() -> None:
    first = layout.checkpoint_prefix("lab", "j1", 500, 1)
    second = layout.checkpoint_prefix("lab", "j1", 500, 2)

    assert first == "projects/lab/jobs/j1/checkpoints/0000000500-1/"
    assert not second.startswith(first)


@pytest.mark.parametrize("name", ["../../evil", "a b/c.png", "\u00e9.png", "", "...", "a" * 500])
def test_a_name_a_stranger_chose_cannot_shape_a_key(name: str) -> None:
    key = layout.upload("lab", "u1", name)

    assert key.startswith("projects/lab/uploads/u1/")
    assert key.count("/") == 4


@pytest.mark.parametrize("part", ["..", "a/b/../c", "", "a b"])
def test_an_id_that_is_none_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="not an object key"):
        layout.job_prefix("lab", part)
