from __future__ import annotations

from pathlib import Path

import pytest

from services.core.errors import DatasetInvalid
from services.core.states import FailureReason
from tests.builders.toy_recipe import toy_config
from tests.builders.training import attempt
from workers.engine.data import open_batches
from workers.engine.frames import FrameKind
from workers.failure import diagnose


@pytest.mark.parametrize("workers_after", [0, 2], ids=["then none", "then two"])
def test_the_number_of_loader_processes_changes_no_bit_even_across_a_resume(tmp_path: Path, workers_after: int) -> None:
    straight = attempt(tmp_path, toy_config())
    stopped = attempt(tmp_path, toy_config(runtime={"loader_workers": 2}), stop_at=5)

    config = toy_config(runtime={"loader_workers": workers_after})
    resumed = attempt(tmp_path, config, resume_dir=stopped.checkpoint_dir(5))

    last, expected = resumed.log.of(FrameKind.CHECKPOINT)[-1], straight.log.of(FrameKind.CHECKPOINT)[-1]
    for name in ("model.safetensors", "optim.safetensors", "ema.safetensors", "tensors.safetensors"):
        assert _sha256(last, name) == _sha256(expected, name)


class BrokenSource:
    """Its second image cannot be decoded."""

    steps_per_epoch = batch_size = 1

    def batch(self, step: int) -> int:
        if step:
            try:
                raise ValueError("half a picture")
            except ValueError as err:
                raise DatasetInvalid("train/1.png: damaged; import the dataset again without it") from err
        return step


def test_what_a_loader_process_says_of_bad_data_is_told_without_its_traceback() -> None:
    with (
        pytest.raises(DatasetInvalid) as caught,
        open_batches(BrokenSource(), first_step=0, total_steps=2, num_workers=1) as batches,
    ):
        list(batches)

    told = diagnose(caught.value)
    assert told.reason is FailureReason.INVALID_DATASET
    assert told.message == "train/1.png: damaged; import the dataset again without it"


def _sha256(frame: object, name: str) -> str:
    assert isinstance(frame, dict)
    return next(file["sha256"] for file in frame["files"] if file["name"] == name)
