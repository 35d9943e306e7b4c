from __future__ import annotations

import pytest

from services.core.states import FailureReason
from workers.adaptation import Adaptation, adapt

GPU, HOST, SHM, CRASH = (
    FailureReason.OUT_OF_MEMORY,
    FailureReason.HOST_OUT_OF_MEMORY,
    FailureReason.SHARED_MEMORY,
    FailureReason.CRASH,
)


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        pytest.param([], Adaptation(), id="a first attempt is as the config says"),
        pytest.param([None, CRASH], Adaptation(), id="a crash and a lost worker change nothing"),
        pytest.param([GPU], Adaptation(micro_batches=2), id="halved after the first lack of memory"),
        pytest.param([GPU, None, GPU], Adaptation(micro_batches=4), id="and again, with a drain in between"),
        pytest.param([HOST], Adaptation(loader_workers=2), id="half the loaders"),
        pytest.param([SHM], Adaptation(loader_workers=0), id="none without shared memory"),
        pytest.param([HOST, SHM], Adaptation(loader_workers=0), id="the stronger remedy counts"),
    ],
)
def test_adaptation(earlier: list[FailureReason | None], expected: Adaptation) -> None:
    assert adapt(earlier, loader_workers=4) == expected


def test_a_config_without_loaders_keeps_its_field() -> None:
    assert adapt([SHM], loader_workers=0).loader_workers is None
