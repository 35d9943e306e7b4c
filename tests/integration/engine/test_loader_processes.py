from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.toy_recipe import toy_config
from tests.builders.training import attempt
from workers.engine.frames import FrameKind


@pytest.mark.parametrize("workers_after", [0, 2], ids=["then none", "then two"])
def test_the_number_of_loader_processes_changes_no_bit_even_across_a_resume(tmp_path: Path, workers_after: int) -> None:
    straight = attempt(tmp_path, toy_config())
    stopped = attempt(tmp_path, toy_config(runtime={"loader_workers": 2}), stop_at=5)

    config = toy_config(runtime={"loader_workers": workers_after})
    resumed = attempt(tmp_path, config, resume_dir=stopped.checkpoint_dir(5))

    last, expected = resumed.log.of(FrameKind.CHECKPOINT)[-1], straight.log.of(FrameKind.CHECKPOINT)[-1]
    for name in ("model.safetensors", "optim.safetensors", "ema.safetensors", "tensors.safetensors"):
        assert _sha256(last, name) == _sha256(expected, name)


def _sha256(frame: object, name: str) -> str:
    assert isinstance(frame, dict)
    return next(file["sha256"] for file in frame["files"] if file["name"] == name)
