from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from services.core.retry import Backoff


@given(retry=st.integers(1, 10_000), seed=st.integers())
def test_delays_stay_within_the_cap_and_its_jitter(retry: int, seed: int) -> None:
    backoff = Backoff(base_seconds=10, cap_seconds=600, jitter=0.2)

    delay = backoff.delay_seconds(retry, random.Random(seed))

    plain = min(600, 10 * 2 ** min(retry - 1, 30))
    assert 0.8 * plain <= delay <= 1.2 * plain
