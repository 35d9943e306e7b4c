from __future__ import annotations

import pytest
from pydantic import ValidationError

from workers.families.config import RecipeConfig, Section


class Body(Section):
    width: int = 8


class Config(RecipeConfig):
    body: Body = Body()
    depth: int = 2


def test_a_stored_config_of_another_version_is_restored_with_what_is_known() -> None:
    stored = {"body": {"width": 16, "gone": 1}, "also_gone": {"x": 1}}

    config = Config.restore(stored)

    assert config.body.width == 16
    assert config.depth == 2


def test_a_submitted_config_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"body": {"gone": 1}})


def test_a_stored_value_that_is_wrong_stays_wrong() -> None:
    with pytest.raises(ValidationError):
        Config.restore({"body": {"width": "wide"}})


def test_a_preset_that_would_never_be_read_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="the preset full is the defaults of the fields"):
        type("Wrong", (Config,), {"PRESETS": {"full": {"depth": 3}}, "__module__": __name__})
