"""Galleries that keep images follow their deployments: each is re-enrolled once another model version is served.

Level-triggered: what is due is read from the database every time, so that a gallery whose move was cut short by a fault
or a kill is due again, and goes on with what was embedded. One server of all does it; a second one at once would only
embed the same again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from services.core.clock import MonotonicClock
from services.core.errors import GalleryNotFound, PlatformError
from services.core.retry import Backoff
from services.db import galleries
from services.db.galleries import Gallery
from services.db.leader import Leadership
from services.db.work import Work
from services.galleries.enrolment import Enrolment

log = structlog.get_logger(__name__)

AT_ONCE = 4
"""Galleries that are moved at the same time, so that a big one does not hold up the small ones."""
BACKOFF = Backoff(base_seconds=2.0, cap_seconds=600.0)
"""The first failures are most often those of a replica that still answers with the version before."""


@dataclass(frozen=True, slots=True)
class _Pause:
    """How often moving a gallery failed, and until when it rests."""

    failures: int
    until: float


class Follower:
    """Moves galleries that are due. One for each server; belongs to its event loop, close it before the `Work`."""

    def __init__(
        self,
        work: Work,
        enrolment: Enrolment,
        leadership: Leadership,
        *,
        interval_seconds: float,
        clock: MonotonicClock = time.monotonic,
    ) -> None:
        self._work = work
        self._enrolment = enrolment
        self._leadership = leadership
        self._interval = interval_seconds
        self._clock = clock
        self._rng = random.Random()
        # A leadership belongs to one thread, and asking for it may wait for the database.
        self._election = ThreadPoolExecutor(1, thread_name_prefix="follower")
        self._moving: dict[str, asyncio.Task[None]] = {}
        self._pauses: dict[str, _Pause] = {}
        self._ticking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._ticking = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop where it is; what was embedded stays for whoever goes on."""
        tasks = [*self._moving.values(), *([self._ticking] if self._ticking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._election.submit(self._leadership.release)
        self._election.shutdown(wait=False)

    async def tick(self) -> list[asyncio.Task[None]]:
        """Begin to move what is due and rests no more, as far as there is room, and return what began."""
        if not await asyncio.get_running_loop().run_in_executor(self._election, self._leadership.acquire):
            return []
        due = await self._work.read(galleries.due)
        self._forget(due)
        begun = []
        for gallery in due:
            if len(self._moving) < AT_ONCE and gallery.id not in self._moving and not self._rests(gallery):
                begun.append(asyncio.create_task(self._move(gallery)))
                self._moving[gallery.id] = begun[-1]
        return begun

    async def _run(self) -> None:
        while True:
            try:
                await self.tick()
            except PlatformError as err:
                log.warning("galleries_not_followed", reason=err.reason)
            except Exception:
                # Nobody else would look again.
                log.exception("galleries_not_followed")
            await asyncio.sleep(self._interval)

    async def _move(self, gallery: Gallery) -> None:
        try:
            steps = self._enrolment.reenrol(gallery.project, gallery.gallery_id, deployment_id="", is_by_itself=True)
            async for _ in steps:
                pass
            log.info("gallery_moved", project=gallery.project, gallery=gallery.gallery_id)
        except GalleryNotFound:
            log.info("gallery_gone", project=gallery.project, gallery=gallery.gallery_id)
        except PlatformError as err:
            self._postpone(gallery)
            log.warning("gallery_not_moved", project=gallery.project, gallery=gallery.gallery_id, reason=str(err))
        except Exception:
            self._postpone(gallery)
            log.exception("gallery_not_moved", project=gallery.project, gallery=gallery.gallery_id)
        finally:
            self._moving.pop(gallery.id, None)

    def _postpone(self, gallery: Gallery) -> None:
        before = self._pauses.get(gallery.id)
        failures = 1 if before is None else before.failures + 1
        self._pauses[gallery.id] = _Pause(failures, self._clock() + BACKOFF.delay_seconds(failures, self._rng))

    def _rests(self, gallery: Gallery) -> bool:
        pause = self._pauses.get(gallery.id)
        return pause is not None and self._clock() < pause.until

    def _forget(self, due: Sequence[Gallery]) -> None:
        uids = {gallery.id for gallery in due}
        self._pauses = {uid: pause for uid, pause in self._pauses.items() if uid in uids}
