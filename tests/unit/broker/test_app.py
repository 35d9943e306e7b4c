from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.broker.app import make_app
from services.core.errors import SettingsInvalid
from services.core.settings import Settings


def conf(tmp_path: Path, broker_url: str = "") -> Any:
    return make_app(Settings(state_dir=tmp_path, broker_url=broker_url)).conf


@pytest.mark.parametrize("broker_url", ["", "redis://127.0.0.1:6379/0"])
def test_messages_are_doorbells_on_every_broker(tmp_path: Path, broker_url: str) -> None:
    settings = conf(tmp_path, broker_url)

    assert settings.worker_pool == "threads"
    assert settings.task_acks_late is False
    assert settings.worker_prefetch_multiplier == 1
    assert settings.result_backend is None
    assert settings.task_ignore_result is True
    assert settings.accept_content == ["json"]
    assert settings.task_publish_retry is False


def test_redis_reserves_no_message_a_killed_worker_would_keep(tmp_path: Path) -> None:
    settings = conf(tmp_path, "redis://127.0.0.1:6379/0")

    assert settings.worker_disable_prefetch is True
    assert settings.broker_transport_options["global_keyprefix"] == "trainyard:"
    assert settings.broker_transport_options["socket_timeout"] == 30


def test_a_files_url_names_the_folder(tmp_path: Path) -> None:
    settings = conf(tmp_path, f"files://{tmp_path}/messages")

    assert settings.broker_transport_options["data_folder_in"] == f"{tmp_path}/messages"
    assert (tmp_path / "messages").is_dir()


@pytest.mark.parametrize("url", ["http://:secret@foo", "nonsense", "redis://:secret@host:port/0"])
def test_an_address_of_no_broker_is_refused_without_repeating_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsInvalid, match="TRAINYARD_BROKER_URL must be redis://") as caught:
        conf(tmp_path, url)

    assert "secret" not in str(caught.value)
