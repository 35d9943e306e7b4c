from __future__ import annotations

import pytest

from services.jobs.near import suggestion


@pytest.mark.parametrize(
    ("known", "said"),
    [
        pytest.param([], "", id="nothing there"),
        pytest.param(["shapes", "faces"], "there are 'shapes', 'faces'", id="none is near"),
        pytest.param(["shapes"], "there is 'shapes'", id="one, and not near"),
        pytest.param(["a", "b", "c", "d"], "there are 'a', 'b', 'c' and 1 more", id="more than a person reads"),
        pytest.param(["shapes", "digit"], "did you mean 'digit'?", id="one is near"),
        pytest.param(["digits-2", "digits-1"], "did you mean 'digits-2' or 'digits-1'?", id="several are near"),
    ],
)
def test_suggestion(known: list[str], said: str) -> None:
    assert suggestion("digits", known) == said
