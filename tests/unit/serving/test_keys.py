"""The key file of TorchServe, which empties and fills it at every rotation while others read it."""

from __future__ import annotations

import json
import os
import threading

import pytest

from services.agent.client import Keys, TorchServeClient, TorchServeUnavailable

DOCUMENT = json.dumps(
    {
        "management": {"key": "m", "expiration time": "2026-01-01T00:00:00Z"},
        "inference": {"key": "i", "expiration time": "2026-01-01T00:00:00Z"},
        "API": {"key": "a"},
    }
)


@pytest.mark.parametrize("so_far", ["", DOCUMENT[: len(DOCUMENT) // 2]], ids=["emptied", "half filled"])
def test_a_key_file_that_is_being_written_is_read_once_it_is_whole(tmp_path, so_far):
    path = tmp_path / "key_file.json"
    path.write_text(so_far)
    writer = threading.Timer(0.05, path.write_text, [DOCUMENT])
    writer.start()

    keys = Keys.read(path)

    writer.join()
    assert (keys.management.value, keys.inference.value, keys.api) == ("m", "i", "a")


def test_keys_that_stay_half_written_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("services.agent.client._WRITING_SECONDS", 0.05)
    path = tmp_path / "key_file.json"
    path.write_text(DOCUMENT[:-1])

    with pytest.raises(TorchServeUnavailable, match="half written"):
        Keys.read(path)


def test_a_key_file_that_is_not_there_is_not_waited_for(tmp_path):
    with pytest.raises(TorchServeUnavailable, match="not written its keys yet"):
        Keys.read(tmp_path / "key_file.json")


def test_a_token_that_somebody_else_rotated_is_known_without_a_refusal(tmp_path):
    path = tmp_path / "key_file.json"
    path.write_text(DOCUMENT)
    with TorchServeClient(
        management_url="http://m", inference_url="http://i", key_file=path, batch_size=1, startup_seconds=9
    ) as client:
        before = client.inference_token.value
        path.write_text(DOCUMENT.replace('"i"', '"new"'))
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))

        assert (before, client.inference_token.value) == ("i", "new")
