from __future__ import annotations

import asyncio
import time

import pytest

from services.core.errors import ReaderTooSlow
from services.rpc.patience import Patience

pytestmark = pytest.mark.asyncio


async def hang(patience_seconds: float) -> None:
    async with Patience(patience_seconds) as patience:
        patience.begin()
        await asyncio.sleep(60)


async def limited_by_somebody_else() -> None:
    async with Patience(60) as patience:
        patience.begin()
        async with asyncio.timeout(0.05):
            await asyncio.sleep(60)


async def test_a_write_that_does_not_come_back_ends_the_stream() -> None:
    started = time.monotonic()

    with pytest.raises(ReaderTooSlow):
        await hang(0.1)

    assert time.monotonic() - started >= 0.1


async def test_a_quiet_stream_and_one_of_many_quick_writes_go_on() -> None:
    async with Patience(1.0) as patience:
        await asyncio.sleep(1.2)
        for _ in range(25):
            patience.begin()
            await asyncio.sleep(0.05)
            patience.end()
        await asyncio.sleep(1.2)


async def test_a_slow_write_after_a_quiet_time_still_gets_all_of_its_time() -> None:
    async with Patience(1.6) as patience:
        await asyncio.sleep(1.2)
        patience.begin()
        # Past the first look of the timer, well before the end of its patience.
        await asyncio.sleep(0.8)
        patience.end()


async def test_a_time_limit_of_somebody_else_stays_its_own() -> None:
    with pytest.raises(TimeoutError):
        await limited_by_somebody_else()


async def test_no_timer_is_left_behind() -> None:
    async with Patience(0.05) as patience:
        patience.begin()

    await asyncio.sleep(0.1)
