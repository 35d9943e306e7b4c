from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench import full
from workers.families.catalog import CATALOG


def frame(step: int, *, step_ms: float = 100.0, samples_s: float = 40.0, peak: int = 7) -> dict[str, Any]:
    mem = {"peak_bytes": peak, "static_estimate_bytes": 5, "alloc_bytes": 1, "rss_bytes": 1}
    return {"step": step, "step_ms": step_ms, "samples_s": samples_s, "mem": mem}


def test_steps_of_the_warm_up_are_not_timed() -> None:
    frames = [frame(1, samples_s=1.0), frame(10, samples_s=2.0), frame(20), frame(30)]

    assert full.summary(frames, 10)["samples_per_second"] == 40.0


def test_windows_count_by_the_time_they_took() -> None:
    # Of 4 samples a step: twenty steps of 0.1 s, and ten of 0.4 s.
    frames = [frame(10), frame(30), frame(40, step_ms=400.0, samples_s=10.0)]

    assert full.summary(frames, 10)["samples_per_second"] == pytest.approx(4 * 30 / 6)


def test_memory_is_that_of_the_last_step() -> None:
    found = full.summary([frame(1), frame(2, peak=8), frame(3, peak=9)], 1)

    assert (found["peak_memory_bytes"], found["estimated_memory_bytes"], found["steps"]) == (9, 5, 3)


@pytest.mark.parametrize(
    ("batch_size", "steps", "expected"),
    [
        pytest.param(64, 200, 40, id="a fifth"),
        pytest.param(1, 200, full.TRAIN, id="until every image was decoded"),
        pytest.param(1, 10, 8, id="two windows remain"),
    ],
)
def test_the_warm_up(batch_size: int, steps: int, expected: int) -> None:
    assert full.warm_up(batch_size, steps) == expected


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_recipe_has_its_data_and_trains_its_preset_in_bf16_undisturbed(name: str) -> None:
    preset = CATALOG[name].load_config().preset("full")

    config = type(preset).model_validate(full.timed(preset, 200))

    assert full.dataset_family(name) in full.WRITE
    assert full.written_size(preset) >= max(full.image_size(preset) or (0, 0))
    assert (config.runtime.precision, config.runtime.channels_last) == ("bf16", "on")
    limits = config.limits
    assert limits.max_steps == preset.limits.max_steps
    assert min(limits.checkpoint_every_steps, limits.evaluate_every_steps, limits.sample_every_steps) > 200
    kept = {"limits": preset.limits, "runtime": preset.runtime}
    assert config.model_copy(update=kept) == preset


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("classification/train", (224, 224)),
        ("classification/mnist_fc", (28, 28)),
        ("detection/yolo_v1", (448, 448)),
        ("detection/ssd", (300, 300)),
        ("gan/celeba_fc", (218, 178)),
        ("gan/find_units", (64, 64)),
        ("gan/vanilla", None),
    ],
)
def test_the_size_is_the_paper_s(name: str, size: tuple[int, int] | None) -> None:
    assert full.image_size(CATALOG[name].load_config().preset("full")) == size


def test_without_a_gpu_it_says_that_it_was_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert full.run(tmp_path) == {"full": {"left_out": full.LEFT_OUT}}
