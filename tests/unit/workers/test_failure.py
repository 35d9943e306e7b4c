from __future__ import annotations

import errno
import signal

import pydantic
import pytest
import torch
from PIL import UnidentifiedImageError

from services.core.errors import DatasetInvalid
from services.core.states import FailureReason
from workers.engine.errors import (
    LOADER_SIGNAL,
    CheckpointMismatch,
    ConfigUnbuildable,
    NonFiniteLoss,
    OutOfMemory,
    StateUnsupported,
)
from workers.failure import diagnose, last_words


class Config(pydantic.BaseModel):
    lr: float


def invalid_config() -> pydantic.ValidationError:
    with pytest.raises(pydantic.ValidationError) as caught:
        Config.model_validate({"lr": "fast"})
    return caught.value


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        pytest.param(MemoryError(), FailureReason.OUT_OF_MEMORY, id="python found no memory"),
        pytest.param(torch.OutOfMemoryError("CUDA out of memory"), FailureReason.OUT_OF_MEMORY, id="nor did the GPU"),
        pytest.param(
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            FailureReason.OUT_OF_MEMORY,
            id="nor did torch on the CPU",
        ),
        pytest.param(OSError(errno.ENOSPC, "No space left"), FailureReason.DISK_FULL, id="full disk"),
        pytest.param(NonFiniteLoss("loss is nan", step=12), FailureReason.NON_FINITE_LOSS, id="nan"),
        pytest.param(DatasetInvalid("too many bad images"), FailureReason.INVALID_DATASET, id="bad data"),
        pytest.param(CheckpointMismatch("other shapes"), FailureReason.SPEC_INVALID, id="another network"),
        pytest.param(invalid_config(), FailureReason.SPEC_INVALID, id="bad config"),
        pytest.param(
            RuntimeError("CUDA error: an illegal memory access was encountered"), FailureReason.GPU_LOST, id="GPU fault"
        ),
        pytest.param(
            RuntimeError("unable to open shared memory object </torch_1>"), FailureReason.SHARED_MEMORY, id="/dev/shm"
        ),
        pytest.param(KeyError("weights"), FailureReason.CRASH, id="a bug"),
        pytest.param(OSError(errno.EFBIG, "File too large"), FailureReason.DISK_FULL, id="a disk that takes no more"),
        pytest.param(OSError("image file is truncated (3 bytes)"), FailureReason.INVALID_DATASET, id="half an image"),
        pytest.param(UnidentifiedImageError("cannot identify"), FailureReason.INVALID_DATASET, id="no image"),
        pytest.param(ConfigUnbuildable("groups"), FailureReason.SPEC_INVALID, id="no network"),
        pytest.param(
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "), FailureReason.CRASH, id="a loader"
        ),
        pytest.param(
            RuntimeError("DataLoader worker (pid 9) is killed by signal: Bus error. "),
            FailureReason.SHARED_MEMORY,
            id="a loader without shared memory",
        ),
    ],
)
def test_reason_of(err: BaseException, reason: FailureReason) -> None:
    assert diagnose(err).reason is reason


def test_the_step_of_an_error_is_kept() -> None:
    assert diagnose(NonFiniteLoss("loss is nan", step=12)).step == 12


def test_a_bad_config_is_named_field_by_field() -> None:
    assert "lr: Input should be a valid number" in diagnose(invalid_config()).message


def test_a_loader_s_death_is_found_in_what_caused_the_error() -> None:
    err = RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly")
    err.__cause__ = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    found = diagnose(err)

    assert found.is_loader
    assert "Killed" in found.message


def test_a_lack_of_memory_carries_into_how_many_parts_to_cut() -> None:
    assert diagnose(OutOfMemory("m", step=3, micro_batches=4)).micro_batches == 4


def test_a_loader_s_death_that_nobody_saw_is_told_by_how_it_ended() -> None:
    err = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    setattr(err, LOADER_SIGNAL, signal.SIGBUS.value)

    found = diagnose(err)

    assert found.is_loader
    assert found.reason is FailureReason.SHARED_MEMORY


def raised(err: BaseException, cause: BaseException | None = None) -> BaseException:
    with pytest.raises(type(err)) as caught:
        raise err from cause
    return caught.value


@pytest.mark.parametrize(
    ("err", "cause", "words"),
    [
        pytest.param(NonFiniteLoss("the loss is nan: lower the rate", step=3), None, "", id="it says it all"),
        pytest.param(invalid_config(), None, "", id="so does a field's"),
        pytest.param(
            ConfigUnbuildable("cannot be built: groups do not fit; change the model"),
            ValueError("groups do not\nfit"),
            "",
            id="with its cause",
        ),
        pytest.param(
            OutOfMemory("the device ran out of memory", step=1, micro_batches=2),
            RuntimeError("tried to allocate 20 MiB"),
            "RuntimeError: tried to allocate 20 MiB\n",
            id="its cause says more",
        ),
    ],
)
def test_a_failure_that_explains_itself_leaves_no_traceback(
    err: BaseException, cause: BaseException | None, words: str
) -> None:
    err = raised(err, cause)

    assert last_words(err, diagnose(err)) == words


@pytest.mark.parametrize(
    "err",
    [
        pytest.param(KeyError("weights"), id="a bug"),
        pytest.param(StateUnsupported("a recipe of ours"), id="a fault of ours that has a class"),
        pytest.param(OSError("image file is truncated (3 bytes)"), id="a reason guessed from words"),
    ],
)
def test_any_other_leaves_its_traceback(err: BaseException) -> None:
    err = raised(err)

    words = last_words(err, diagnose(err))

    assert words.startswith("Traceback")
    assert "test_failure.py" in words
