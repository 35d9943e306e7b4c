from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.core.disk import FREE, SIZE, register_disk


def test_the_disk_is_reported_before_the_directory_is_there(tmp_path: Path) -> None:
    registry = CollectorRegistry(auto_describe=True)
    usage = shutil.disk_usage(tmp_path)

    register_disk(tmp_path / "not" / "yet", registry)

    free = registry.get_sample_value(FREE)
    assert registry.get_sample_value(SIZE) == usage.total
    assert free is not None
    assert 0 < free < usage.total


def test_a_disk_that_cannot_be_read_gives_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    registry = CollectorRegistry(auto_describe=True)
    register_disk(tmp_path, registry)

    monkeypatch.setattr(shutil, "disk_usage", fail)

    assert registry.get_sample_value(FREE) is None
    assert registry.get_sample_value(SIZE) is None
