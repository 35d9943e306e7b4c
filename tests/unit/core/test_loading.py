from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from services.core.loading import loading


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_while_modules_load() -> None:
    with loading():
        assert not gc.isenabled()

    assert gc.isenabled()


def test_what_was_loaded_is_never_walked_again() -> None:
    before = gc.get_freeze_count()

    with loading():
        loaded = [[number] for number in range(1000)]

    assert gc.get_freeze_count() >= before + len(loaded)


def test_collections_go_on_after_a_module_that_does_not_load() -> None:
    with pytest.raises(ImportError), loading():
        raise ImportError

    assert gc.isenabled()


def test_they_stay_off_where_they_were_off() -> None:
    gc.disable()

    with loading():
        pass

    assert not gc.isenabled()
