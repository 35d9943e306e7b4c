"""Galleries that keep images move by themselves: whole, once, by whoever is there, and after a kill in the middle."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.core.settings import Settings
from services.db import deployments, galleries, identities
from services.db.database import Database
from services.db.galleries import Gallery
from services.db.models import ModelVersion
from services.db.work import Work
from services.deployments.manager import DeploymentManager
from services.deployments.predict import Predictor
from services.galleries.cache import MatrixCache
from services.galleries.embed import Embedder, Picture
from services.galleries.enrolment import AT_ONCE, Enrolment, Person
from services.galleries.following import Follower
from services.galleries.manager import GalleryManager
from services.galleries.objects import ImageObjects
from services.recipes.manager import RecipeManager
from services.storage.open import open_store
from services.storage.port import ObjectStore
from tests.builders.face_endpoint import FaceEndpoint, face_endpoint, shots
from tests.builders.galleries import deployed, make_gallery, report, trained

PEOPLE = AT_ONCE + 2
"""One more than a step of a move embeds at once, and then one."""
LONG = 3600.0


@dataclass
class Yard:
    """A database, a store and a serving process that several servers share."""

    database: Database
    store: ObjectStore
    endpoint: FaceEndpoint
    now: float = 0.0
    asked: list[bytes] = field(default_factory=list)
    """Pictures that the serving process was asked about."""
    room: int = 1000
    """So many pictures it answers; the others wait until `opened`."""
    opened: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        answer = self.endpoint.embed

        def embed(content: bytes) -> list[float] | None:
            self.asked.append(content)
            if len(self.asked) > self.room:
                self.opened.wait(30)
            return answer(content)

        self.endpoint.embed = embed  # type: ignore[method-assign]  # the real one, with a gate before it

    def serve(self, version: ModelVersion) -> None:
        """Make the deployment want a version, and its serving process answer with it."""
        with self.database.write() as session:
            deployments.update(session, "default", "faces", model_version_id=version.id, target="cpu-t1", workers=1)
        report(self.database, self.endpoint.url)
        self.endpoint.version = version.version

    def pin(self, is_pinned: bool) -> None:
        with self.database.write() as session:
            galleries.pin(session, "default", "staff", is_pinned=is_pinned)

    def gallery(self) -> Gallery:
        with self.database.read() as session:
            return galleries.get(session, "default", "staff")

    def compared(self) -> int:
        with self.database.read() as session:
            return len(identities.vectors(session, galleries.get(session, "default", "staff")))

    @asynccontextmanager
    async def server(self, election: str = "galleries") -> AsyncIterator[tuple[Follower, Enrolment]]:
        """Give the part of an API server that enrols, with its own connections."""
        work = Work(self.database)
        predictor = Predictor(DeploymentManager(work, target="cpu-t1"))
        images = ImageObjects(self.store)
        manager = GalleryManager(work, RecipeManager.of_catalog(), images, MatrixCache())
        enrolment = Enrolment(work, Embedder(predictor), images, manager, limit=100)
        leadership = self.database.leadership(election)
        follower = Follower(work, enrolment, leadership, interval_seconds=LONG, clock=lambda: self.now)
        yield follower, enrolment
        await follower.close()
        await predictor.close()
        images.close()
        work.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "metadata.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.dispose()
    return path


@pytest.fixture
def yard(template: Path, tmp_path: Path) -> Iterator[Yard]:
    """A gallery of `PEOPLE` of the first version, whose deployment serves the second one by now."""
    shutil.copy(template, tmp_path / "metadata.sqlite3")
    settings = Settings(state_dir=tmp_path)
    database = Database(settings.resolved_database_url)
    with face_endpoint() as endpoint:
        yard = Yard(database, open_store(settings), endpoint)
        first = trained(database)
        deployed(database, first)
        report(database, endpoint.url)
        make_gallery(database, first)
        asyncio.run(_enrol(yard))
        yard.serve(trained(database))
        yard.asked.clear()
        yield yard
        yard.opened.set()
    database.dispose()


async def _enrol(yard: Yard) -> None:
    async with yard.server() as (_, enrolment):
        for number in range(PEOPLE):
            pictures = [Picture(content) for content in shots(number)]
            who = f"person-{number}"
            person = Person(identity_id=who, display_name=who, images=pictures, replace_existing=False, request_id="")
            await enrolment.enrol("default", "staff", person)


async def follow(follower: Follower) -> int:
    """Let a follower move what is due, and return how many galleries that were."""
    begun = await follower.tick()
    await asyncio.gather(*begun)
    return len(begun)


@pytest.mark.asyncio
async def test_one_of_two_servers_moves_a_gallery_once(yard: Yard) -> None:
    async with yard.server() as (first, _), yard.server() as (second, _):
        moved = await asyncio.gather(follow(first), follow(second))
        again = await asyncio.gather(follow(first), follow(second))

    assert (sorted(moved), again) == ([0, 1], [0, 0])
    assert (yard.gallery().version, yard.compared()) == (2, PEOPLE)
    assert sorted(yard.asked) == sorted(shots(number)[0] for number in range(PEOPLE))


@pytest.mark.asyncio
async def test_two_servers_that_both_believe_to_lead_do_no_harm(yard: Yard) -> None:
    async with yard.server("one") as (first, _), yard.server("other") as (second, _):
        moved = await asyncio.gather(follow(first), follow(second))

    assert moved == [1, 1]
    assert (yard.gallery().version, yard.compared()) == (2, PEOPLE)


@pytest.mark.asyncio
async def test_a_server_that_ends_in_the_middle_leaves_the_rest_to_the_next(yard: Yard) -> None:
    yard.room = AT_ONCE
    async with yard.server() as (first, _):
        await first.tick()
        await _until(lambda: len(yard.asked) == PEOPLE)
        # Everybody of the first step has a vector of the second version, and nobody is compared by it.
        between = (yard.gallery().version, yard.compared())
        done = _progress(yard)
    yard.opened.set()
    async with yard.server() as (second, _):
        moved = await follow(second)

    assert (between, done) == ((1, PEOPLE), (AT_ONCE, PEOPLE))
    assert (moved, yard.gallery().version, yard.compared()) == (1, 2, PEOPLE)
    assert len(yard.asked) == PEOPLE + (PEOPLE - AT_ONCE)


@pytest.mark.asyncio
async def test_a_gallery_that_is_pinned_while_it_moves_stays_until_it_may_follow_again(yard: Yard) -> None:
    yard.room = AT_ONCE
    async with yard.server() as (follower, _):
        begun = await follower.tick()
        await _until(lambda: len(yard.asked) == PEOPLE)
        yard.pin(True)
        yard.opened.set()
        await asyncio.gather(*begun)
        stayed, due = (yard.gallery().version, yard.compared()), await follow(follower)
        yard.pin(False)
        moved = await follow(follower)

    assert (stayed, due) == ((1, PEOPLE), 0)
    assert (moved, yard.gallery().version, yard.compared()) == (1, 2, PEOPLE)


@pytest.mark.asyncio
async def test_a_gallery_that_cannot_move_yet_rests_and_is_tried_again(yard: Yard) -> None:
    yard.endpoint.version = 1
    async with yard.server() as (follower, _):
        attempts = [await follow(follower), await follow(follower)]
        refused_at = yard.gallery().version
        yard.endpoint.version, yard.now = 2, LONG
        attempts.append(await follow(follower))

    assert (attempts, refused_at, yard.gallery().version) == ([1, 0, 1], 1, 2)


def _progress(yard: Yard) -> tuple[int, int]:
    with yard.database.read() as session:
        gallery = galleries.get(session, "default", "staff")
        assert gallery.wanted_version_id is not None
        return identities.progress(session, gallery, gallery.wanted_version_id)


async def _until(check: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + 30
    while not check():
        assert asyncio.get_running_loop().time() < end, "waited too long"
        await asyncio.sleep(0.01)
