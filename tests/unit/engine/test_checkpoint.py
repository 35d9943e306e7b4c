from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.builders.toy_recipe import toy_config
from tests.builders.training import attempt
from workers.engine import state as train_state
from workers.engine.checkpoint import Checkpointer, Written
from workers.engine.errors import CheckpointMismatch, NonFiniteLoss, StateUnsupported
from workers.engine.frames import FrameKind
from workers.families.base import TrainState


def make_state(width: int = 16) -> TrainState:
    network = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    state = TrainState(modules={"network": network}, optimizers={"adam": optimizer})
    update(state)
    return state


def update(state: TrainState) -> None:
    state.modules["network"](torch.randn(2, 3, 8, 8)).square().sum().backward()
    state.optimizers["adam"].step()
    state.step += 1


@pytest.fixture
def written() -> list[Written]:
    return []


@pytest.fixture
def checkpointer(tmp_path: Path, written: list[Written]) -> Checkpointer:
    return Checkpointer(tmp_path, written.append)


def test_a_checkpoint_holds_the_state_of_its_step_though_training_goes_on(
    tmp_path: Path, checkpointer: Checkpointer
) -> None:
    state = make_state()
    weight = state.modules["network"][0].weight
    saved_weight = weight.detach().clone()
    saved_moment = state.optimizers["adam"].state[weight]["exp_avg"].clone()

    checkpointer.submit(train_state.capture(state, extra={}))
    update(state)
    checkpointer.wait()
    checkpointer.close()

    stored = train_state.read(tmp_path / "step-1.ready")
    assert torch.equal(stored.files["model.safetensors"]["network.0.weight"], saved_weight)
    assert torch.equal(stored.files["optim.safetensors"]["adam.0.exp_avg"], saved_moment)
    assert not torch.equal(weight, saved_weight)


def test_an_optimizer_waits_until_its_state_is_copied(checkpointer: Checkpointer) -> None:
    state = make_state()
    gate, order = threading.Event(), []
    checkpointer._copier.submit(lambda: (gate.wait(10), order.append("copied")))

    checkpointer.submit(train_state.capture(state, extra={}))
    thread = threading.Thread(target=lambda: (update(state), order.append("stepped")))
    thread.start()
    gate.set()
    thread.join()
    checkpointer.wait()
    checkpointer.close()

    assert order == ["copied", "stepped"]


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, checkpointer: Checkpointer, written: list[Written]) -> None:
    state = make_state()
    for _ in range(2):
        checkpointer.submit(train_state.capture(state, extra={}))
        checkpointer.wait()
    checkpointer.close()

    assert written[0].files == written[1].files
    assert [path.name for path in tmp_path.iterdir()] == ["step-1.ready"]


def test_a_round_trip_restores_values_formats_and_optimizer(tmp_path: Path, checkpointer: Checkpointer) -> None:
    state, fresh = make_state(), make_state()
    checkpointer.reserve(train_state.capture(state, extra={}))
    checkpointer.wait()
    checkpointer.submit(train_state.capture(state, extra={}))
    checkpointer.wait()
    checkpointer.close()

    train_state.restore(fresh, train_state.read(tmp_path / "step-1.ready"))

    for mine, theirs in zip(fresh.modules["network"].parameters(), state.modules["network"].parameters(), strict=True):
        here, there = fresh.optimizers["adam"].state[mine], state.optimizers["adam"].state[theirs]
        assert torch.equal(mine, theirs)
        assert mine.stride() == theirs.stride() == here["exp_avg"].stride()
        assert here.keys() == there.keys()
        assert all(torch.equal(here[key], there[key]) for key in here)


def test_a_weight_that_is_not_finite_never_becomes_visible(tmp_path: Path, checkpointer: Checkpointer) -> None:
    state = make_state()
    with torch.no_grad():
        state.modules["network"][0].weight[3, 1, 2, 0] = float("-inf")

    checkpointer.submit(train_state.capture(state, extra={}))

    with pytest.raises(NonFiniteLoss, match=r"network\.0\.weight"):
        checkpointer.wait()
    checkpointer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_buffer_may_hold_infinity(tmp_path: Path, checkpointer: Checkpointer) -> None:
    state = make_state()
    state.modules["network"].register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    checkpointer.submit(train_state.capture(state, extra={}))
    checkpointer.wait()
    checkpointer.close()

    assert (tmp_path / "step-1.ready").is_dir()


def test_a_disk_that_refuses_is_reported_and_leaves_nothing(tmp_path: Path, written: list[Written]) -> None:
    blocked = tmp_path / "spool"
    blocked.write_text("a file where the spool should be")
    checkpointer = Checkpointer(blocked, written.append)

    checkpointer.submit(train_state.capture(make_state(), extra={}))

    with pytest.raises(OSError, match="spool"):
        checkpointer.wait()
    checkpointer.close()
    assert written == []


def test_another_network_is_refused_by_name(tmp_path: Path, checkpointer: Checkpointer) -> None:
    checkpointer.submit(train_state.capture(make_state(16), extra={}))
    checkpointer.wait()
    checkpointer.close()

    with pytest.raises(CheckpointMismatch, match=r"network\.0\.weight is \(8, 3, 3, 3\).* and \(16, 3, 3, 3\)"):
        train_state.restore(make_state(8), train_state.read(tmp_path / "step-1.ready"))


def test_a_missing_optimizer_is_refused(tmp_path: Path, checkpointer: Checkpointer) -> None:
    state, other = make_state(), make_state()
    other.optimizers["second"] = torch.optim.SGD(other.modules["network"].parameters(), lr=1.0)
    checkpointer.submit(train_state.capture(state, extra={}))
    checkpointer.wait()
    checkpointer.close()

    with pytest.raises(CheckpointMismatch, match="second"):
        train_state.restore(other, train_state.read(tmp_path / "step-1.ready"))


def test_state_that_needs_pickling_is_refused() -> None:
    state = make_state()
    state.optimizers["adam"].param_groups[0]["schedule"] = lambda step: step

    with pytest.raises(StateUnsupported, match="adam keeps a function"):
        train_state.capture(state, extra={})


@pytest.mark.parametrize("step", [0, 1, 5, 7])
def test_a_loss_that_is_not_finite_ends_the_job_at_its_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, step: int
) -> None:
    config = toy_config(limits={"checkpoint_every_steps": 2, "log_every_steps": 100}, nan_at_step=step)

    outcome = attempt(tmp_path, config)

    assert isinstance(outcome.error, NonFiniteLoss)
    assert outcome.error.step == step + 1
    assert outcome.checkpoint_steps() == [saved for saved in (2, 4, 6) if saved <= step]
    ready = sorted(path.name for path in outcome.spool_dir.glob("step-*"))
    assert ready == [f"step-{saved}.ready" for saved in outcome.checkpoint_steps()]
    assert outcome.log.of(FrameKind.FINAL) == []


def test_an_infinite_weight_behind_a_finite_loss_is_found_by_the_next_checkpoint(tmp_path: Path) -> None:
    config = toy_config(limits={"checkpoint_every_steps": 4, "max_steps": 12}, inf_weight_at_step=3)

    outcome = attempt(tmp_path, config)

    assert isinstance(outcome.error, NonFiniteLoss)
    assert outcome.checkpoint_steps() == []
