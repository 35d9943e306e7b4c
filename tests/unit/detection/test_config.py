from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from workers.families.detection.config import SsdConfig, YoloV1Config

CONFIGS = [YoloV1Config, SsdConfig]
PRESETS = [
    pytest.param(config, name, id=f"{config.__name__}-{name}") for config in CONFIGS for name in config.preset_names()
]


@pytest.mark.parametrize(("config", "name"), PRESETS)
def test_a_preset_survives_json(config, name):
    preset = config.preset(name)

    assert config.model_validate_json(preset.model_dump_json()) == preset


@pytest.mark.parametrize(
    ("config", "change", "remedy"),
    [
        pytest.param(YoloV1Config, {"model": {"grid": 8}}, "use 512", id="448 pixels are 7 cells of 64"),
        pytest.param(SsdConfig, {"data": {"image_size": 512}}, "use model.body 'small'", id="SSD300 is 300"),
        pytest.param(SsdConfig, {"model": {"sizes": [[0.2]]}}, "6 non-empty lists", id="one list a level"),
        pytest.param(
            YoloV1Config, {"schedule": {"name": "milestones"}}, "use schedule.name 'constant'", id="no milestones"
        ),
        pytest.param(
            YoloV1Config,
            {"schedule": {"name": "cosine", "milestones": [[1, 0.1]]}},
            "leave it out",
            id="idle milestones",
        ),
        pytest.param(
            YoloV1Config, {"augment": {"scale": [1.2, 0.8]}}, "[1, 1] turns zoom off", id="range turned round"
        ),
        pytest.param(YoloV1Config, {"optim": {"learning_rate": 1}}, "Extra inputs", id="unknown keys are errors"),
    ],
)
def test_a_contradiction_names_its_remedy(config, change, remedy):
    with pytest.raises(ValidationError) as failure:
        config.model_validate(change)

    assert remedy in str(failure.value)


def test_the_control_plane_validates_without_torch():
    code = "import sys, workers.families.detection.config as c; c.YoloV1Config(); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
